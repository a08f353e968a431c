"""The age of a fork, whichever way it takes over upstream's work. git itself is asked wherever it knows the answer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fork.world import ARG, KV, METAL, NOW, World, commit, dated, lines, untouched
from tests.sources.gitrepo import WEB, git, history, new
from toolchain.core.console import Console
from toolchain.core.errors import FetchFailed, NotARepository, UnknownRevision, Unrelated
from toolchain.sources import Repository
from toolchain.text import as_text
from toolchain.upstream.fork.freshness import freshness
from toolchain.upstream.fork.graph import CommitGraph
from toolchain.upstream.fork.join import Joined


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_base_age_and_own_work(world: World) -> None:
    base = world.land({"a.c": "1\n"}, days=20)
    world.fetch()
    git(world.fork, "merge", "--quiet", "--ff-only", "origin/master")
    world.work({"ggml/src/ggml-turbo.c": "x\ny\n", KV: lines((3, "turbo"))}, days=3)
    world.work({METAL: lines((9, "kernel_turbo"), (10, "more"))}, days=2)
    newest = [world.land({"a.c": f"{n}\n"}, days=5 - n) for n in range(2, 5)][-1]
    found = world.freshness()
    branch = found.branches[0]
    assert branch.base is not None
    assert branch.merge_base == branch.base
    assert branch.base.commit == git(world.fork, "merge-base", "master", "origin/master") == base
    assert branch.base.build == int(git(world.upstream, "rev-list", "--count", base))
    assert branch.behind == int(git(world.upstream, "rev-list", "--count", f"{base}..{newest}")) == 3
    assert (branch.age_days, branch.verdict, found.verdict) == (19, "stale", "stale")
    assert found.newest_days == 1
    assert [own.subject for own in branch.own] == ["turbo work", "turbo work"]
    shown = {change.area: (change.files, change.inserted, change.deleted) for change in branch.areas}
    assert shown == {"TurboQuant only": (1, 2, 0), "core KV cache": (1, 1, 1), "Metal": (1, 2, 2)}
    assert branch.turbo
    assert (branch.activity.days_30, branch.activity.last[:10]) == (2, "2026-07-30")
    assert found.newest.commit == newest


@pytest.mark.parametrize(
    ("days", "verdict"), [(0, "fresh"), (13.99, "fresh"), (14, "stale"), (28, "stale"), (28.01, "very stale")]
)
def test_thresholds(world: World, days: float, verdict: str) -> None:
    world.land({"a.c": "1\n"}, days=50)
    world.fetch()
    git(world.fork, "merge", "--quiet", "origin/master")
    world.work({"b.c": "own\n"})
    world.land({"a.c": "2\n"}, days=50 - days)
    assert world.branch().verdict == verdict
    world.land({"a.c": "3\n"}, days=0)
    assert world.freshness(now=NOW - timedelta(days=50 - days)).branches[0].verdict == verdict  # as of that day


def test_the_age_of_a_mirror_is_not_the_forks(world: World) -> None:
    """A fork on upstream's newest commit is fresh, however old the clones are."""
    world.land({"a.c": "1\n"}, days=96.6)
    world.fetch()
    git(world.fork, "merge", "--quiet", "origin/master")
    world.work({"b.c": "own\n"}, days=96)
    found = world.freshness()
    assert (found.verdict, found.branches[0].age_days, found.branches[0].behind) == ("fresh", 0, 0)
    assert found.newest_days == 96.6


@pytest.mark.parametrize("squashed", [True, False])
def test_a_fork_without_a_common_commit_is_placed_by_its_files(world: World, squashed: bool) -> None:
    base = world.land({"a.c": "1\n", "new.c": "n\n"}, days=20)
    if squashed:
        world.fetch()
        git(world.fork, "merge", "--quiet", "origin/master")
    git(world.fork, "checkout", "--quiet", "--orphan", "squash")
    own = {"ggml/src/ggml-turbo.c": "x\n", KV: lines((3, "turbo"))}
    world.work(own | ({} if squashed else {"a.c": "1\n", "new.c": "n\n"}))
    git(world.fork, "branch", "--force", "master", "squash")
    world.land({"a.c": "2\n", ARG: lines((1, "later"))}, days=5)
    found = world.freshness()
    branch = found.branches[0]
    assert (found.verdict, branch.base, branch.merge_base) == ("unrelated", None, None)
    assert branch.nearest is not None
    assert (branch.nearest.commit, branch.age_days) == (base, 15)
    assert (branch.nearest.equal, branch.nearest.files) == (5, 7)
    assert "nearest by content: b2" in as_text(found)


def test_repeated_merges_move_the_base_and_are_no_work_of_the_fork(world: World) -> None:
    for round_ in range(3):
        world.work({f"own{round_}.c": "own\n"}, f"own {round_}", days=40 - round_)
        newest = world.land({"a.c": f"{round_}\n", f"new{round_}.c": "x\n"}, days=30 - round_)
        world.fetch()
        git(world.fork, "merge", "--quiet", "--no-edit", "origin/master", env=dated(20 - round_))
    branch = world.branch()
    assert branch.base is not None
    assert (branch.base.commit, branch.base.by) == (newest, "history")
    assert (branch.merges, branch.syncs, branch.imported, branch.equivalent) == (3, 3, 0, 0)
    assert [own.subject for own in branch.own] == ["own 0", "own 1", "own 2"]
    assert branch.files == 3


def test_cherry_picks_of_upstream_are_noise(world: World) -> None:
    world.work({ARG: lines((30, "ours"))}, "own", days=45)
    world.land({"skipped.c": "x\n"}, days=40)
    picked = world.land({ARG: lines((5, "theirs"))}, days=30)
    world.fetch()
    git(world.fork, "cherry-pick", picked, env=dated(20))
    branch = world.branch()
    # the same change to a file that differs elsewhere: only its patch id tells
    assert (branch.equivalent, branch.imported) == (1, 0)
    assert [own.subject for own in branch.own] == ["own"]
    assert git(world.fork, "cherry", "origin/master", "master").count("- ") == 1
    assert branch.base is not None
    assert branch.base.by == "history"


def test_one_later_commit_taken_over_does_not_make_what_it_jumped_over_contained(world: World) -> None:
    world.land({"skipped.c": "x\n"}, days=40)
    later = world.land({f"new{n}.c": "x\n" for n in range(5)}, days=30)
    world.fetch()
    git(world.fork, "cherry-pick", later)
    branch = world.branch()
    assert branch.base is not None
    assert branch.base.build == 1
    assert branch.own == ()


def test_a_squash_shows_by_its_contents(world: World) -> None:
    world.work({ARG: lines((30, "ours"))}, "own turbo", days=50)
    for n in range(6):
        synced = world.land({ARG: lines((n, "theirs")), f"new{n}.c": "x\n"}, days=40 - n)
    world.fetch()
    git(world.fork, "merge", "--quiet", "--squash", "origin/master")
    world.work({}, "sync", days=10)
    after = world.land({"new0.c": "y\n"}, days=1)
    branch = world.branch()
    assert branch.merge_base is not None
    assert branch.base is not None
    assert branch.merge_base.build == 1
    assert (branch.base.commit, branch.base.by) == (synced, "content")
    assert branch.behind == 1
    assert branch.age_days == 34
    assert branch.imported == 1
    assert [own.subject for own in branch.own] == ["own turbo"]
    assert [(change.area, change.files) for change in branch.areas] == [("tools", 1)]
    assert world.freshness().newest.commit == after


def test_a_rebased_fork_is_as_young_as_its_new_base(world: World) -> None:
    world.work({"own.c": "own\n"}, "own", days=90)
    onto = world.land({"a.c": "x\n"}, days=4)
    world.fetch()
    git(world.fork, "rebase", "--quiet", "origin/master", env=dated(1))
    branch = world.branch()
    assert branch.base is not None
    assert (branch.base.commit, branch.base.by, branch.verdict) == (onto, "history", "fresh")
    assert len(branch.own) == 1


def test_a_fork_that_is_ahead_of_the_mirror(world: World) -> None:
    world.land({"a.c": "x\n"}, days=9)
    git(world.fork, "pull", "--quiet")
    ahead = [commit(world.fork, {f"n{n}.c": "x\n"}, f"landed (#{20_010 + n})", days=3 - n, who=WEB) for n in range(2)]
    commit(world.fork, {"own.c": "x\n"}, "the fork's own request (#7)", days=1, who=WEB)
    found = world.freshness()
    assert found.newest.commit == ahead[-1]
    assert (found.mirror_build, found.newest.build) == (2, 4)
    assert [own.subject for own in found.branches[0].own] == ["the fork's own request (#7)"]
    assert found.branches[0].behind == 0


def test_build_tags_are_held_against_their_numbers(world: World) -> None:
    git(world.fork, "tag", "b1")
    world.work({"own.c": "x\n"})
    git(world.fork, "tag", "b9493")
    git(world.fork, "tag", "-m", "annotated", "b2")
    git(world.fork, "tag", "beta1")
    git(world.fork, "tag", "v0.2.0")
    git(world.fork, "tag", "v0.3.0")
    assert world.freshness().untrue_tags == ("b9493",)
    git(world.upstream, "tag", "--annotate", "v0.3.0", "--message", "Release")
    git(world.upstream, "tag", "v0.2.0", git(world.fork, "rev-parse", "HEAD~1"))
    assert world.freshness().untrue_tags == ("b9493", "v0.3.0", "v0.2.0")
    git(world.fork, "tag", "--force", "v0.3.0", "master~1")
    assert world.freshness().untrue_tags == ("b9493", "v0.2.0")


def test_branches_are_ranked_and_one_that_is_unrelated_is_said_to_be(world: World) -> None:
    git(world.fork, "switch", "--quiet", "--create", "turbo")
    world.work({"ggml/src/turbo-quant.c": "x\n"})
    git(world.fork, "switch", "--quiet", "--orphan", "pages")
    commit(world.fork, {"index.html": "x"}, "pages", days=1)
    found = world.freshness("master", "pages", "turbo")
    assert [branch.name for branch in found.branches] == ["turbo", "master", "pages"]
    assert [branch.verdict for branch in found.branches] == ["fresh", "fresh", "unrelated"]
    with pytest.raises(Unrelated, match="pages does not share a commit"):
        world.freshness("pages")


def test_a_branch_that_vanished(world: World) -> None:
    git(world.fork, "branch", "feature-turbo4")
    with pytest.raises(UnknownRevision, match="no branch 'feature-turbo3'") as caught:
        world.freshness("feature-turbo3")
    assert "feature-turbo4" in caught.value.hint
    (world.fork / ".git/refs/heads/broken").write_text("1" * 40 + "\n")
    with pytest.raises(UnknownRevision, match="no branch 'broken'"):
        world.freshness("broken")
    assert world.freshness("master").branches


def test_remote_branches_count_once(world: World) -> None:
    world.fetch()
    world.work({"a.c": "x\n"})
    with world.joined() as both:
        assert set(both.branches) == {"master", "origin/master"}
    git(world.fork, "push", "--quiet", "origin", "master:topic")
    git(world.fork, "branch", "topic")
    with world.joined() as both:
        assert set(both.branches) == {"master", "origin/master", "topic"}


def test_what_is_no_fork(tmp_path: Path, world: World) -> None:
    with pytest.raises(NotARepository):
        Repository.open(tmp_path / "nowhere")
    upstream = Repository.open(world.upstream)
    with pytest.raises(UnknownRevision, match="has no branch"):
        Joined(Repository.open(new(tmp_path / "empty")), upstream)
    with pytest.raises(UnknownRevision, match="has no commits"):
        Joined(upstream, Repository.open(tmp_path / "empty"))
    other = new(tmp_path / "other")
    commit(other, {"a": "x"}, "elsewhere", days=1)
    with Joined(Repository.open(other), upstream) as both, pytest.raises(Unrelated, match="master does not share"):
        freshness(both, Console(), now=NOW)


@pytest.mark.parametrize("side", ["fork", "upstream"])
def test_a_shallow_clone_is_refused_with_the_command_that_helps(tmp_path: Path, world: World, side: str) -> None:
    world.land({"a": "x"}, days=3)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{world.upstream}", "shallow")
    shallow, whole = Repository.open(tmp_path / "shallow"), Repository.open(world.upstream)
    with pytest.raises(FetchFailed, match=f"the {side}'s clone is shallow") as caught:
        Joined(shallow, whole) if side == "fork" else Joined(whole, shallow)
    assert f"git --git-dir={shallow.git_dir} fetch --unshallow" in caught.value.hint


def test_neither_repository_is_written_to(world: World) -> None:
    world.work({KV: lines((3, "x"))})
    world.land({KV: lines((3, "y"))}, days=2)
    before = untouched(world.fork), untouched(world.upstream)
    world.freshness()
    world.conflicts()
    assert (untouched(world.fork), untouched(world.upstream)) == before


@st.composite
def _graphs(draw: st.DrawFn) -> list[tuple[str, list[int], str, str]]:
    commits = []
    for position in range(draw(st.integers(2, 14))):
        above = draw(st.lists(st.integers(0, position - 1), max_size=2, unique=True)) if position else []
        commits.append((f"b{position}", above, "ada@example.org", "x"))
    return commits


@settings(max_examples=15, deadline=None)
@given(commits=_graphs(), data=st.data())
def test_bases_and_own_commits_are_what_git_says(
    tmp_path_factory: pytest.TempPathFactory, commits: list[tuple[str, list[int], str, str]], data: st.DataObject
) -> None:
    repo = new(tmp_path_factory.mktemp("graph") / "repo")
    ids = history(repo, commits)
    one, other = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    graph = CommitGraph(Repository.open(repo), [one, other])
    own = graph.ancestors([other], graph.ancestors([one]))
    assert own == set(git(repo, "rev-list", other, f"^{one}").split())
    assert set(graph.bases(own, other)) == _merge_bases(repo, one, other)


def _merge_bases(repo: Path, one: str, other: str) -> set[str]:
    common = set(git(repo, "rev-list", one).split()) & set(git(repo, "rev-list", other).split())
    return set(git(repo, "merge-base", "--all", one, other).split()) if common else set()
