from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.gitrepo import WEB, git, history, new
from toolchain.core.console import Console
from toolchain.core.errors import PinMissing, UnknownRevision
from toolchain.sources import Repository, pin
from toolchain.stages import Pin

Commits = list[tuple[str, list[int], str, str]]


def _resolve(repo: Path, name: str, *, nearest: bool = False) -> Pin:
    return pin.resolve(Repository.open(repo), name, nearest=nearest, console=Console())


def _line(length: int) -> Commits:
    return [("master", [n - 1] if n else [], "ada@example.org", f"change {n}") for n in range(length)]


@st.composite
def _graphs(draw: st.DrawFn) -> Commits:
    commits: Commits = []
    for position in range(draw(st.integers(1, 14))):
        above = draw(st.lists(st.integers(0, position - 1), max_size=3, unique=True)) if position else []
        commits.append((f"b{position}", above, "ada@example.org", "x"))
    return commits


@settings(max_examples=12, deadline=None)
@given(commits=_graphs())
def test_build_numbers_are_what_git_counts(tmp_path_factory: pytest.TempPathFactory, commits: Commits) -> None:
    repo = new(tmp_path_factory.mktemp("graph") / "repo")
    last = history(repo, commits)[-1]
    git(repo, "update-ref", "refs/heads/master", last)
    builds = pin.mainline(Repository.open(repo))
    firsts = git(repo, "rev-list", "--first-parent", last).split()
    assert set(builds.values()) == set(firsts)
    assert {commit: int(git(repo, "rev-list", "--count", commit)) for commit in firsts} == {
        commit: build for build, commit in builds.items()
    }


def test_a_build_is_found_without_its_tag(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    ids = history(repo, _line(9))
    assert _resolve(repo, "b7") == Pin(name="b7", commit=ids[6], build=7, exact=True)


def test_a_commit_as_pin(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    ids = history(repo, _line(4))
    assert _resolve(repo, ids[2][:9]) == Pin(name=ids[2][:9], commit=ids[2], build=3, exact=True)
    with pytest.raises(PinMissing, match="0123456789ab"):
        _resolve(repo, "0123456789ab", nearest=True)


def test_a_missing_build_names_the_newest_and_the_way_out(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    ids = history(repo, _line(5))
    with pytest.raises(PinMissing, match=f"b9, .*newest build is b5 .{ids[4][:12]}") as caught:
        _resolve(repo, "b9")
    assert "sources.nearest_pin=true" in caught.value.hint
    assert _resolve(repo, "b9", nearest=True) == Pin(name="b9", commit=ids[4], build=5, exact=False)


def test_an_empty_repository_has_no_pin(tmp_path: Path) -> None:
    with pytest.raises(PinMissing, match="no commits"):
        _resolve(new(tmp_path / "repo"), "b9", nearest=True)


def test_the_operators_choice(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    ids = history(repo, _line(5))
    assert pin.named(Repository.open(repo), "master").commit == ids[4]
    with pytest.raises(UnknownRevision):
        pin.named(Repository.open(repo), "nowhere")


@pytest.fixture
def fork(tmp_path: Path) -> tuple[Path, list[str]]:
    """A fork: upstream's 12 builds, a side branch from the newest, and a master of its own that merges upstream."""
    commits: Commits = [("up", [n - 1] if n else [], WEB, f"change {n} (#{20_000 + 40 * n})") for n in range(12)]
    commits += [("side", [11], "eve@example.org", "side 1"), ("side", [12], "eve@example.org", "side 2")]
    commits += [("master", [5], WEB, "the fork's own (#1)"), ("master", [14], WEB, "the fork's own (#2)")]
    commits += [("master", [15, 9], WEB, "Merge upstream"), ("master", [16], WEB, "the fork's own (#3)")]
    repo = new(tmp_path / "fork")
    return repo, history(repo, commits)


def test_a_forks_own_commits_are_no_builds(fork: tuple[Path, list[str]]) -> None:
    repo, ids = fork
    assert list(pin.mainline(Repository.open(repo)).values()) == ids[:12]
    assert git(repo, "rev-list", "--count", ids[14]) == "7"
    assert _resolve(repo, "b7").commit == ids[6]
    with pytest.raises(PinMissing, match="newest build is b12"):
        _resolve(repo, "b13")
    assert _resolve(repo, "b13", nearest=True).commit == ids[11]


@pytest.mark.parametrize("position", [14, 2])
def test_a_forks_tag_that_lies_is_not_believed(
    fork: tuple[Path, list[str]], position: int, capsys: pytest.CaptureFixture[str]
) -> None:
    repo, ids = fork
    git(repo, "tag", "b7", ids[position])
    assert _resolve(repo, "b7").commit == ids[6]
    assert f"tag b7 is {ids[position][:12]}" in capsys.readouterr().err


def test_a_tag_beyond_the_recognised_mainline_counts_when_its_number_is_true(fork: tuple[Path, list[str]]) -> None:
    repo, ids = fork
    git(repo, "tag", "b13", ids[12])
    git(repo, "tag", "b20", ids[13])
    assert _resolve(repo, "b13").commit == ids[12]
    with pytest.raises(PinMissing):
        _resolve(repo, "b20")


def test_a_shallow_clone_knows_only_its_tags(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    ids = history(repo, _line(6))
    git(repo, "tag", "b6")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repo}", "shallow")
    assert _resolve(tmp_path / "shallow", "b6") == Pin(name="b6", commit=ids[5], build=6, exact=True)
    with pytest.raises(PinMissing, match="shallow"):
        _resolve(tmp_path / "shallow", "b1", nearest=True)
