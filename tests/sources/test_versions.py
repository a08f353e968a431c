"""Pins that are versions, on a llama.cpp of ten builds that raised its version twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from tests.sources.gitrepo import commit, git, new
from toolchain.core import config
from toolchain.core.console import Console
from toolchain.core.errors import PinMissing
from toolchain.sources import Repository, mirror, pin, prepare, versions
from toolchain.stages import Pin

RAISED = {4: "0.2.0", 8: "0.4.0"}
"""versions by the build that raised them; 0.3.0 never came to be on the mainline"""


def stating(version: str) -> dict[str, str]:
    parts = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    lines = "".join(f"set(LLAMA_VERSION_{name} {number})\n" for name, number in parts)
    return {"CMakeLists.txt": f"project(llama.cpp)\n{lines}set(LLAMA_VERSION_BASE x)\n"}


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Path, dict[int, str]]:
    """The repository, and its commits by build."""
    repo = new(tmp_path / "llama.cpp")
    made = {}
    for build in range(1, 11):
        files = stating(RAISED[build]) if build in RAISED else {"notes": f"{build}\n"}
        made[build] = commit(repo, {"CMakeLists.txt": "project(llama.cpp)\n", **files} if build == 1 else files)
    git(repo, "tag", "--annotate", "v0.2.0", made[5], "--message", "Release v0.2.0")
    return repo, made


def resolve(repo: Path, name: str, *, nearest: bool = False) -> Pin:
    return pin.resolve(Repository.open(repo), name, nearest=nearest, console=Console())


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("v0.3.0", "0.3.0"),
        ("release-v0.3.0", "0.3.0"),
        ("0.3.0", "0.3.0"),
        ("v1.20.3-rc1", "1.20.3rc1"),
        ("b10488", None),
        ("v0.3", None),
        ("xv0.3.0", None),
        ("0123456", None),
    ],
)
def test_names_of_versions(name: str, version: str | None) -> None:
    assert versions.parse(name) == (Version(version) if version else None)


@pytest.mark.parametrize("name", ["v0.2.0", "release-v0.2.0", "0.2.0"])
def test_a_version_is_the_build_that_its_tag_is_on(llama: tuple[Path, dict[int, str]], name: str) -> None:
    repo, made = llama
    found = resolve(repo, name)
    assert found == Pin(name=name, commit=made[5], build=5, exact=True)
    assert pin.describe(found) == f"{name} (b5)"
    assert pin.named(Repository.open(repo), name) == found


def test_the_tag_as_it_is_written_comes_first_then_a_branch(llama: tuple[Path, dict[int, str]]) -> None:
    repo, made = llama
    git(repo, "tag", "release-v0.2.0", made[6])
    assert resolve(repo, "release-v0.2.0").commit == made[6]
    git(repo, "branch", "release-v0.4.0", made[9])
    assert resolve(repo, "release-v0.4.0") == Pin(name="release-v0.4.0", commit=made[9], build=9, exact=True)


@pytest.mark.parametrize(
    ("name", "build"),
    [("v0.1.0", 3), ("v0.3.0", 7), ("v0.4.0", 8), ("v0.4.1", 10), ("v1.0.0", 10)],
)
def test_a_missing_version_is_stood_in_for_by_what_cannot_lie_after_it(
    llama: tuple[Path, dict[int, str]], name: str, build: int
) -> None:
    repo, made = llama
    with pytest.raises(PinMissing, match=rf"{name}.* newest build is b10 ") as caught:
        resolve(repo, name)
    assert f"take b{build} with --set sources.nearest_pin=true" in caught.value.hint
    found = resolve(repo, name, nearest=True)
    assert found == Pin(name=name, commit=made[build], build=build, exact=False)
    assert pin.describe(found) == f"b{build}"


def test_a_tag_that_its_tree_contradicts_is_somebody_elses(
    llama: tuple[Path, dict[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    repo, made = llama
    git(repo, "tag", "v0.4.0", made[6])
    with pytest.raises(PinMissing):
        resolve(repo, "v0.4.0")
    assert f"v0.4.0 is {made[6][:12]}, whose tree states 0.2.0; the tag is ignored" in capsys.readouterr().err
    git(repo, "tag", "v0.4.0-rc1", made[9])
    assert resolve(repo, "v0.4.0-rc1").build == 9


def test_a_release_beside_the_mainline(llama: tuple[Path, dict[int, str]], capsys: pytest.CaptureFixture[str]) -> None:
    repo, made = llama
    git(repo, "switch", "--quiet", "--create", "patches", made[5])
    made_beside = commit(repo, stating("0.2.1"))
    git(repo, "tag", "v0.2.1")
    git(repo, "switch", "--quiet", "master")
    assert resolve(repo, "v0.2.1") == Pin(name="v0.2.1", commit=made_beside, build=6, exact=True)
    assert "is not on the mainline" in capsys.readouterr().err
    assert resolve(repo, "b6").commit == made[6]


def test_a_shallow_clone_needs_a_build_beside_the_version(llama: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    repo, made = llama
    git(repo, "tag", "v0.4.0")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repo}", "shallow")
    with pytest.raises(PinMissing, match=r"v0\.4\.0 has no build number .*shallow"):
        resolve(tmp_path / "shallow", "v0.4.0")
    git(tmp_path / "shallow", "tag", "b10")
    assert resolve(tmp_path / "shallow", "v0.4.0") == Pin(name="v0.4.0", commit=made[10], build=10, exact=True)
    with pytest.raises(PinMissing, match=r"v0\.5\.0 is not a tag"):
        resolve(tmp_path / "shallow", "v0.5.0", nearest=True)


def test_a_partial_mirror_whose_files_were_never_fetched(llama: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    repo, made = llama
    bare = mirror.open_mirror("llama.cpp", f"file://{repo}", tmp_path / "ws", offline=False, console=Console())
    offline = Repository(bare.git_dir)
    assert versions.stated(offline, made[5]) is None
    assert pin.resolve(offline, "v0.2.0", nearest=False, console=Console()).build == 5
    assert versions.stated(bare, made[5]) == Version("0.2.0")


def test_from_an_ollama_that_pins_a_version(llama: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    ollama = new(tmp_path / "ollama")
    commit(ollama, {"LLAMA_CPP_VERSION": "release-v0.2.0\n", "llama/compat/001.patch": ""})
    flags = {"sources.ollama": str(ollama), "sources.llama_cpp": str(llama[0]), "workspace": str(tmp_path / "ws")}
    found = prepare(config.load(environ={}, flags=flags), Console())
    assert (found.pin.name, found.pin.build, found.pin.commit) == ("release-v0.2.0", 5, llama[1][5])
    assert found.llama_cpp.describe == "release-v0.2.0 (b5)"


def test_releases_newest_first(llama: tuple[Path, dict[int, str]]) -> None:
    repo, made = llama
    for name, build in (("v0.10.0", 10), ("release-v0.4.0", 9), ("v0.4.0", 9), ("b9", 9)):
        git(repo, "tag", name, made[build])
    found = versions.releases(Repository.open(repo))
    assert [(tag.name, tag.commit) for tag in found.values()] == [
        ("v0.10.0", made[10]),
        ("v0.4.0", made[9]),
        ("v0.2.0", made[5]),
    ]


def test_a_mirror_grows_by_builds_whatever_versions_there_are() -> None:
    builds = [f"b{number}" for number in range(10_000, 10_016)]
    milestones = mirror._milestones([*builds, *(f"v0.{number}.0" for number in range(9)), "ci-1"])
    assert milestones == [f"b{number}" for number in range(10_002, 10_016, 2)]
