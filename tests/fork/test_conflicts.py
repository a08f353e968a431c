"""Dry runs held against what git does when it merges and cherry-picks for real."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fork.world import ARG, KV, METAL, NOW, World, commit, lines
from tests.sources.gitrepo import git
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import FetchFailed, Unrelated
from toolchain.core.run import Run
from toolchain.sources import Repository
from toolchain.upstream.fork.conflicts import conflicts
from toolchain.upstream.fork.freshness import freshness
from toolchain.upstream.fork.inquiry import audit
from toolchain.upstream.fork.join import Joined, open_fork


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _quietly(where: Path, *args: str) -> bool:
    git(where, "config", "user.email", "ada@a.org")
    git(where, "config", "user.name", "Ada")
    return subprocess.run(["git", *args], cwd=where, capture_output=True, check=False).returncode == 0


def _unmerged(where: Path) -> set[str]:
    return set(git(where, "diff", "--name-only", "--diff-filter=U").split())


_Change = tuple[str, int, str]
_changes = st.lists(
    st.tuples(st.sampled_from([KV, METAL, ARG, "new.c"]), st.integers(0, 9), st.sampled_from("abc")), max_size=4
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(ours=_changes, theirs=_changes)
def test_the_dry_runs_are_what_git_does(
    tmp_path_factory: pytest.TempPathFactory, ours: list[_Change], theirs: list[_Change]
) -> None:
    world = World(tmp_path_factory.mktemp("w"))
    for work, changes in ((world.work, theirs), (world.land, ours)):
        state: dict[str, dict[int, str]] = {}
        for number, (path, line, text) in enumerate(changes):
            state.setdefault(path, {})[line * 3] = f"{text} {work.__name__ if text == 'a' else ''}"
            work({path: lines(*state[path].items())}, **({"days": 9 - number}))
    found = world.conflicts()

    world.fetch()
    tip = git(world.fork, "rev-parse", "HEAD")
    trial = world.fork.parent / "trial"
    git(world.fork.parent, "clone", "--quiet", str(world.upstream), str(trial))
    git(trial, "fetch", "--quiet", str(world.fork), "master:theirs")
    clean = _quietly(trial, "merge", "--quiet", "--no-edit", "theirs")
    merge = found.outcomes[0]
    assert merge.how == "merge"
    assert {conflict.path for conflict in merge.conflicts} == _unmerged(trial)
    assert clean == (not merge.conflicts)
    for conflict in merge.conflicts:
        assert conflict.hunks == (trial / conflict.path).read_text().count("<<<<<<<")

    git(trial, "reset", "--quiet", "--hard", "origin/master")
    in_order = []
    for own in (one.commit for one in found.picks):
        good = _quietly(trial, "cherry-pick", "--allow-empty", "--keep-redundant-commits", own)
        in_order.append(good)
        if not good:
            git(trial, "reset", "--quiet", "--hard")
    assert [not pick.in_order for pick in found.picks] == in_order
    for pick in found.picks:
        git(trial, "reset", "--quiet", "--hard", "origin/master")
        assert pick.alone == _quietly(trial, "cherry-pick", "--allow-empty", "--keep-redundant-commits", pick.commit)
        git(trial, "reset", "--quiet", "--hard")
    assert git(world.fork, "rev-parse", "HEAD") == tip


def test_conflicts_in_the_cache_or_in_metal_stop(world: World) -> None:
    world.work({KV: lines((3, "ours"), (30, "ours")), METAL: lines((3, "ours")), ARG: lines((3, "ours"))})
    world.land({KV: lines((3, "x"), (30, "x")), METAL: lines((3, "x")), ARG: lines((3, "x"))}, days=2)
    merge = world.conflicts().outcomes[0]
    assert merge.stop == ("core KV cache", "Metal")
    assert [(area.area, area.files, area.hunks) for area in merge.areas] == [
        ("core KV cache", 1, 2),
        ("Metal", 1, 1),
        ("tools", 1, 1),
    ]
    assert merge.minutes == 2 * 10 + 10 + 2


def test_deleted_renamed_and_doubly_added_files(world: World) -> None:
    world.land({ARG: "".join(f"option {n}\n" for n in range(40))}, days=20)
    git(world.fork, "pull", "--quiet")
    world.work({ARG: "ours\n", KV: lines((1, "ours")), "both.c": "ours\n"})
    text = (world.upstream / KV).read_text()
    world.land({ARG: None, KV: None, "src/llama-kv-cells.cpp": text, "both.c": "theirs\n"}, days=2)
    merge = world.conflicts().outcomes[0]
    # a rename is followed, as git does: no conflict there
    assert {(conflict.path, conflict.kind) for conflict in merge.conflicts} == {
        (ARG, "modify/delete"),
        ("both.c", "add/add"),
    }


def test_after_a_squash_the_merge_from_the_true_base_is_the_small_one(world: World) -> None:
    world.work({"own.c": "own\n", ARG: lines((20, "ours"))}, "own turbo", days=60)
    for n in range(4):
        world.land({ARG: lines((n, f"state {n}")), KV: lines((n, f"state {n}")), f"{n}.c": "x\n"}, days=50 - n)
    world.fetch()
    git(world.fork, "merge", "--quiet", "--squash", "origin/master")
    world.work({}, "sync", days=10)
    world.land({ARG: lines((3, "later")), KV: lines((3, "later"))}, days=5)
    found = world.conflicts()
    by_how = {outcome.how: outcome for outcome in found.outcomes}
    assert {conflict.path for conflict in by_how["merge"].conflicts} == {ARG, KV}
    assert by_how["merge from the base that the contents show"].conflicts == ()
    assert found.best.conflicts == ()
    assert (found.picks_alone, found.picks_in_order) == (1, 1)


def test_a_series_of_picks_goes_on_where_single_ones_cannot(world: World) -> None:
    world.work({"turbo.c": "a\n"}, days=9)
    world.work({"turbo.c": "a\nb\n", ARG: lines((9, "ours"))}, days=8)
    world.work({METAL: lines((9, "ours"))}, days=7)
    world.work({"turbo.c": "a\nb\nc\n"}, days=6)
    world.land({METAL: lines((9, "theirs")), ARG: lines((35, "theirs"))}, days=2)
    found = world.conflicts()
    assert [pick.alone for pick in found.picks] == [True, False, False, False]
    assert [not pick.in_order for pick in found.picks] == [True, True, False, True]
    assert found.outcomes[-1].stop == ("Metal",)


def test_patches_of_third_parties(world: World) -> None:
    world.work({KV: lines((10, "ours"))})
    near, far, odd = (
        f"--- a/{KV}\n+++ b/{KV}\n@@ -{n},3 +{n},3 @@\n line {n - 1}\n-line {n}\n+patched\n line {n + 1}\n".encode()
        for n in (10, 30, 70)
    )
    found = world.conflicts({"001-near.patch": near, "002-far.patch": far, "003-odd.patch": odd})
    shown = {patch.name: (patch.on_pin, patch.on_outcome) for patch in found.outcomes[0].patches}
    assert shown == {
        "001-near.patch": ((), (KV,)),
        "002-far.patch": ((), ()),
        "003-odd.patch": ((KV,), (KV,)),
    }


def test_a_patch_that_the_fork_has_already_counts_as_applied(world: World) -> None:
    world.work({KV: lines((10, "patched"))})
    patch = git(world.fork, "diff", "HEAD~1", "HEAD").encode() + b"\n"
    assert world.conflicts({"001.patch": patch}).outcomes[0].patches[0].on_outcome == ()


def test_a_branch_without_a_common_commit(world: World) -> None:
    git(world.fork, "switch", "--quiet", "--orphan", "pages")
    commit(world.fork, {"index.html": "x"}, "pages", days=1)
    with world.joined() as both:
        found = freshness(both, Console(), now=NOW, names=["master", "pages"])
        with pytest.raises(Unrelated, match="pages shares no commit"):
            conflicts(both, found.branches[1], git(world.upstream, "rev-parse", "HEAD"), Console(), patches={})


def _partial(tmp_path: Path, world: World) -> tuple[Path, str]:
    """A fork without the contents of its files, and upstream's newest commit."""
    world.work({KV: lines((3, "ours")), METAL: lines((9, "kernel void kernel_turbo3()"))}, days=5)
    world.work({KV: lines((3, "ours"), (20, "ours"))}, days=4)
    onto = world.land({KV: lines((3, "theirs"))}, days=2)
    for key in ("allowFilter", "allowAnySHA1InWant"):
        git(world.fork, "config", f"uploadpack.{key}", "true")
    git(tmp_path, "clone", "--quiet", "--bare", "--filter=blob:none", f"file://{world.fork}", "partial")
    return tmp_path / "partial", onto


def test_a_partial_clone_of_the_operators_is_refused_and_left_alone(tmp_path: Path, world: World) -> None:
    partial, onto = _partial(tmp_path, world)
    with Joined(Repository.open(partial), Repository.open(world.upstream)) as both:
        branch = freshness(both, Console(), now=NOW).branches[0]
        assert (branch.files, branch.unread, len(branch.own)) == (2, 2, 2)
        with pytest.raises(FetchFailed, match="needs contents that are missing") as caught:
            conflicts(both, branch, onto, Console(), patches={})
        with pytest.raises(FetchFailed, match="a search of the Metal sources needs contents"):
            audit(Run(config=load(environ={}), console=Console()), both, ["master"])
    assert f"--git-dir={partial} fetch --refetch" in caught.value.hint
    missing = git(partial, "rev-list", "--objects", "--missing=print", "master").count("?")
    assert missing >= 2


def test_a_fork_named_by_its_url_is_mirrored_and_completed(tmp_path: Path, world: World) -> None:
    _, onto = _partial(tmp_path, world)
    config = load(environ={}, flags={"workspace": str(tmp_path / "ws"), "fork.origin": f"file://{world.fork}"})
    with open_fork(config, Repository.open(world.upstream), Console()) as both:
        branch = freshness(both, Console(), now=NOW).branches[0]
        assert (branch.files, branch.unread, branch.inserted) == (2, 0, 3)
        found = conflicts(both, branch, onto, Console(), patches={})
        audited = audit(Run(config=config, console=Console()), both, ["master"])
    assert found.outcomes[0].stop == ("core KV cache",)
    assert [(one.verdict, one.kernels) for one in audited] == [("kernels without dispatch", ("kernel_turbo3",))]


def test_data_that_a_mirror_lacks_does_not_stand_in_the_way(world: World) -> None:
    git(world.fork, "config", "gc.auto", "0")
    world.work({"models/vocab.gguf": "weights\n", ARG: lines((3, "ours"))})
    world.land({ARG: lines((30, "theirs")), "models/vocab.gguf": "other weights\n"}, days=2)
    lost = git(world.fork, "rev-parse", "HEAD:models/vocab.gguf")
    (world.fork / ".git/objects" / lost[:2] / lost[2:]).unlink()
    merge = world.conflicts().outcomes[0]
    assert merge.left_out == ("models/vocab.gguf",)
    assert [(conflict.path, conflict.kind) for conflict in merge.conflicts] == [("models/vocab.gguf", "unread")]
