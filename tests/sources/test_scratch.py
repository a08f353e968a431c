from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from tests.sources.gitrepo import commit, git, new, snapshot
from toolchain.core.console import Console
from toolchain.core.errors import ChecksumMismatch, DirtyScratch, FetchFailed, LockHeld, PatchFailed
from toolchain.core.records import sha256_bytes
from toolchain.sources import create
from toolchain.sources import scratch as scratch_module
from toolchain.stages import Checkout, FileChecksum, Pin, Rendered, RenderedTarget, Scratch, Sources

LLAMA = {"ggml.c": "one\ntwo\nthree\n", "common/arg.cpp": "alpha\nbeta\n", "models/vocab.gguf": "GGUF", "LICENSE": "L"}
OLLAMA = {"go.mod": "module m\n", "main.go": "package main\n", "LLAMA_CPP_VERSION": "b1\n"}


def edit(path: str, old: str | None, new_text: str) -> str:
    """A unified diff of one file; `old` is None for a new file."""
    header = f"diff --git a/{path} b/{path}\n" + ("new file mode 100644\n" if old is None else "")
    names = ("/dev/null" if old is None else f"a/{path}", f"b/{path}")
    lines = difflib.unified_diff((old or "").splitlines(keepends=True), new_text.splitlines(keepends=True), *names)
    return header + "".join(lines)


def rendered(ollama_diff: str, series: str, files: tuple[FileChecksum, ...] = ()) -> Rendered:
    """A rendering whose llama.cpp diff is inside the Ollama one, as the series engine makes it."""
    target = RenderedTarget(target="ollama", commit="", diff=ollama_diff, sha256="", files=files)
    return Rendered(series_sha256=sha256_bytes(series.encode()), targets=(target,), edits=(), facts={}, cache_types=())


def series(*patches: tuple[str, str]) -> Rendered:
    """A series that adds these files under llama/compat/ and changes main.go."""
    diff = "".join(edit(f"llama/compat/{name}", None, text) for name, text in patches)
    return rendered(diff + edit("main.go", "package main\n", "package main // ours\n"), diff)


FIRST = edit("ggml.c", LLAMA["ggml.c"], "one\ntwo\nand a half\nthree\n")
SECOND = edit("ggml.c", "one\ntwo\nand a half\nthree\n", "one\ntwo\nand a half\nthree\nfour\n")


class World:
    """An Ollama and a llama.cpp of the operator, and a place for scratch trees."""

    def __init__(self, folder: Path) -> None:
        self.repos = {"ollama": new(folder / "ollama"), "llama.cpp": new(folder / "llama.cpp")}
        self.commits = {
            "ollama": commit(self.repos["ollama"], OLLAMA),
            "llama.cpp": commit(self.repos["llama.cpp"], LLAMA),
        }
        self.root = folder / "scratch"

    def create(self, what: Rendered, root: Path | None = None) -> Scratch:
        """`scratch.create` on this world."""
        ollama, llama = (
            Checkout(
                target=name,
                origin="",
                git_dir=self.repos[name] / ".git",
                commit=self.commits[name],
                describe=name,
            )
            for name in ("ollama", "llama.cpp")
        )
        pin = Pin(name="b1", commit=self.commits["llama.cpp"], build=1, exact=True)
        sources = Sources(ollama=ollama, llama_cpp=llama, era="pinned", pin=pin)
        return create(sources, what, root or self.root, Console())

    def lose(self, path: str) -> None:
        """Remove a file's content from the operator's llama.cpp, as stripped mirrors have it."""
        oid = git(self.repos["llama.cpp"], "rev-parse", f"HEAD:{path}")
        (self.repos["llama.cpp"] / ".git" / "objects" / oid[:2] / oid[2:]).unlink()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _status(tree: Path) -> str:
    return git(tree, "status", "--porcelain")


def test_the_series_is_one_commit_in_each_tree(world: World) -> None:
    before = {name: snapshot(repo) for name, repo in world.repos.items()}
    made = world.create(series(("models/002-b.patch", SECOND), ("zz/001-a.patch", FIRST)))
    for tree, name, done in (
        (made.ollama, "ollama", made.ollama_commit),
        (made.llama_cpp, "llama.cpp", made.llama_cpp_commit),
    ):
        assert git(tree, "rev-parse", "HEAD", "HEAD^", made.branch).split() == [done, world.commits[name], done]
        assert git(tree, "symbolic-ref", "--short", "HEAD") == made.branch
        assert _status(tree) == ""
    assert (made.llama_cpp / "ggml.c").read_text() == "one\ntwo\nand a half\nthree\nfour\n", "patches in name order"
    assert (made.ollama / "main.go").read_text() == "package main // ours\n"
    assert {name: snapshot(repo) for name, repo in world.repos.items()} == before, "the operator's own is untouched"


def test_the_same_input_gives_the_same_commits(world: World, tmp_path: Path) -> None:
    what = series(("001-a.patch", FIRST))
    one, other = world.create(what), world.create(what, tmp_path / "elsewhere")
    assert (one.ollama_commit, one.llama_cpp_commit) == (other.ollama_commit, other.llama_cpp_commit)
    assert world.create(what) == one


def test_a_changed_series_rewrites_only_what_differs(world: World) -> None:
    made = world.create(series(("001-a.patch", FIRST)))
    before = _times(made)
    again = world.create(series(("001-a.patch", FIRST), ("002-b.patch", SECOND)))
    assert again.branch != made.branch
    changed = {path for path, time in _times(again).items() if before.get(path) != time}
    assert changed == {"llama.cpp/ggml.c", "ollama/llama/compat/002-b.patch"}


def _times(made: Scratch) -> Mapping[str, int]:
    files = (path for path in made.root.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(made.root)): path.stat().st_mtime_ns for path in files if path.parent != made.root}


def test_a_patch_that_is_upstream_already_is_passed_over(world: World) -> None:
    world.commits["llama.cpp"] = commit(world.repos["llama.cpp"], {"ggml.c": "one\ntwo\nand a half\nthree\n"})
    made = world.create(series(("001-a.patch", FIRST), ("002-b.patch", SECOND)))
    assert (made.llama_cpp / "ggml.c").read_text() == "one\ntwo\nand a half\nthree\nfour\n"


@pytest.mark.parametrize("change", ["modified", "added", "deleted"])
def test_somebody_elses_changes_stop_the_run(world: World, change: str) -> None:
    made = world.create(series(("001-a.patch", FIRST)))
    file = made.llama_cpp / ("common/new.h" if change == "added" else "common/arg.cpp")
    file.unlink() if change == "deleted" else file.write_text("mine")
    with pytest.raises(DirtyScratch, match=file.name) as caught:
        world.create(series(("002-b.patch", FIRST)))
    assert f"rm -r {made.root}" in caught.value.hint
    assert git(made.llama_cpp, "rev-parse", "HEAD") == made.llama_cpp_commit
    assert file.exists() is (change != "deleted")


def test_a_file_that_was_only_touched_is_no_change(world: World) -> None:
    made = world.create(series(("001-a.patch", FIRST)))
    (made.llama_cpp / "ggml.c").touch()
    assert world.create(series(("001-a.patch", FIRST))) == made


def test_a_folder_of_somebody_else_is_not_filled(world: World) -> None:
    (world.root / "llama.cpp").mkdir(parents=True)
    (world.root / "llama.cpp" / "precious").touch()
    with pytest.raises(DirtyScratch, match="precious"):
        world.create(series(("001-a.patch", FIRST)))


def test_a_patch_that_does_not_fit_changes_nothing(world: World) -> None:
    made = world.create(series(("001-a.patch", FIRST)))
    times = _times(made)
    with pytest.raises(PatchFailed, match=r"ggml\.c") as caught:
        world.create(series(("001-a.patch", SECOND)))
    assert "llama/compat/001-a.patch" in caught.value.hint
    assert _times(made) == times
    assert git(made.ollama, "rev-parse", "HEAD") == made.ollama_commit


def test_a_result_that_differs_from_the_manifest_is_refused(world: World) -> None:
    sums = FileChecksum(path="main.go", pristine="", rendered=sha256_bytes(b"other"), inserted=1, deleted=0)
    with pytest.raises(ChecksumMismatch, match=r"main\.go"):
        world.create(rendered(edit("main.go", "package main\n", "package main // ours\n"), "x", (sums,)))


def test_lost_test_data_is_left_out_with_a_warning(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.lose("models/vocab.gguf")
    made = world.create(series(("001-a.patch", FIRST)))
    assert "models/vocab.gguf" in capsys.readouterr().err
    assert not (made.llama_cpp / "models").exists()
    assert _status(made.llama_cpp) == ""
    assert world.create(series(("001-a.patch", FIRST), ("002-b.patch", SECOND))).root == made.root


def test_lost_source_files_stop_the_run(world: World) -> None:
    world.lose("common/arg.cpp")
    with pytest.raises(FetchFailed, match=r"common/arg\.cpp"):
        world.create(series(("001-a.patch", FIRST)))


@pytest.mark.parametrize("first_time", [True, False])
def test_an_interrupted_switch_is_finished(world: World, monkeypatch: pytest.MonkeyPatch, first_time: bool) -> None:
    if not first_time:
        world.create(series(("001-a.patch", FIRST)))
    with monkeypatch.context() as patched:
        patched.setattr(scratch_module._Tree, "_point_head", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.create(series(("001-a.patch", FIRST), ("002-b.patch", SECOND)))
    (world.root / "ollama" / "main.go").write_text("half writt")
    (world.root / "ollama" / ".git" / "index.lock").touch()
    made = world.create(series(("001-a.patch", FIRST)))
    assert (made.ollama / "main.go").read_text() == "package main // ours\n"
    assert _status(made.ollama) == _status(made.llama_cpp) == ""


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_one_run_at_a_time(world: World) -> None:
    made = world.create(series(("001-a.patch", FIRST)))
    with FileLock(made.root / ".lock"), pytest.raises(LockHeld):
        world.create(series(("001-a.patch", FIRST)))
