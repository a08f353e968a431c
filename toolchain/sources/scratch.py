"""Scratch work trees: our own repositories, which borrow the objects of the sources and have the series as one commit.

The commit is made in a separate index, with a fixed identity and the date of the upstream commit, so that the same
input gives the same ids. The work tree is then switched from commit to commit. An unchanged file keeps its modification
time, so builds stay incremental.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..core import folders, locks
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ChecksumMismatch, DirtyScratch, FetchFailed, PatchFailed
from ..core.records import sha256_bytes, write_bytes
from ..stages import Checkout, Rendered, Scratch, Sources
from . import eras
from .mirror import missing_blobs
from .repository import Repository

_NAME, _EMAIL = "TurboQuant toolchain", "toolchain@turboquant.invalid"
AUTHOR = f"{_NAME} <{_EMAIL}>"
_SWITCHING = "turboquant-switching"
_UPSTREAM = "upstream"
_BUILT_FROM = {".c", ".cc", ".cpp", ".cu", ".cuh", ".go", ".h", ".hpp", ".m", ".metal", ".cmake", ".in", ".mod", ".sum"}
_BUILT_FROM |= {".json", ".txt", ".patch", ".s", ".S", ".comp", ".py", ".sh", ".tmpl", ".gotmpl"}
_GLOB = re.compile(r"[*?\[\\ ]")
_NOT_BUILT = re.compile(r"(^|/)(testdata|tests?|docs|models|media|examples)/")


def scratch_root(config: Config, sources: Sources) -> Path:
    """The folder of the scratch trees of these two commits, the same for every series."""
    commits = hashlib.sha256(f"{sources.ollama.commit} {sources.llama_cpp.commit}".encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{sources.ollama.describe}-b{sources.pin.build}-{commits}")
    return folders.workspace(config) / "scratch" / name


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock the scratch trees for one run. Raises `LockHeld`."""
    hint = "wait until it ends, or use another workspace"
    with locks.held(root / ".lock", f"{root}: another run is using it", hint=hint):
        yield


def create(sources: Sources, rendered: Rendered, root: Path, console: Console) -> Scratch:
    """Update root/ollama and root/llama.cpp to the rendered series.

    Ollama gets the rendered diff; llama.cpp gets every patch that the patched Ollama then holds under
    llama/compat/, in the order in which Ollama's own build applies them. Each is one commit on the branch
    `turboquant/<series>` on top of upstream's commit. In an era where llama.cpp is a part of Ollama's tree,
    root/llama.cpp has links to that part, under the names that llama.cpp itself uses.

    Raises `DirtyScratch` when a tree has other changes, `PatchFailed`, `ChecksumMismatch`, `FetchFailed` when the
    sources lack files, `LockHeld`, `DiskFull`.
    """
    branch = f"turboquant/{rendered.series_sha256[:12]}"
    message = f"TurboQuant series {rendered.series_sha256[:12]}\n"
    diffs = {target.target: target for target in rendered.targets}
    with locked(root), console.step("scratch trees") as step:
        era = eras.of(sources)
        ollama = _Tree(root / "ollama", sources.ollama, console)
        llama_cpp = _Tree(root / "llama.cpp", sources.llama_cpp, console) if "llama.cpp" in era.targets else None
        for tree in filter(None, (ollama, llama_cpp)):
            tree.refuse_changes()
        step.update(detail="apply the series")
        rendered_diff = diffs["ollama"].diff.encode(errors="surrogateescape")
        ollama_commit = ollama.commit({"the series for ollama": rendered_diff}, message)
        for file in diffs["ollama"].files:
            content = ollama.repository.read_blob(ollama_commit, file.path)
            if file.rendered and (content is None or sha256_bytes(content) != file.rendered):
                raise ChecksumMismatch(f"{file.path}: the scratch tree differs from the rendered series")
        llama_commit = ollama_commit
        if llama_cpp:
            patches = compat_patches(ollama.repository, ollama_commit, era.compat)
            llama_commit = llama_cpp.commit(patches, message)
        step.update(detail="write the files")
        ollama.switch(branch, ollama_commit)
        if llama_cpp:
            llama_cpp.switch(branch, llama_commit)
        else:
            _link(root / "llama.cpp", ollama, era, ollama_commit)
    return Scratch(
        root=root,
        ollama=ollama.path,
        llama_cpp=root / "llama.cpp",
        branch=branch,
        ollama_commit=ollama_commit,
        llama_cpp_commit=llama_commit,
    )


def require_unchanged(path: Path, commit: str) -> None:
    """Check that a scratch tree is that commit and nothing else. Raises `DirtyScratch`."""
    repository = Repository(path / ".git", own=True, offline=True, work_tree=path)
    if not (path / ".git").is_dir():
        raise DirtyScratch(f"{path}: there is no scratch tree", hint="./inv build makes it")
    head = repository.git("rev-parse", "HEAD").strip()
    if head != commit:
        raise DirtyScratch(
            f"{path}: the scratch tree has since been made another one ({head[:12]}, not {commit[:12]})",
            hint="./inv build makes it again",
        )
    _refuse_changes(path, repository)


def compat_patches(ollama: Repository, commit: str, folder: str) -> dict[str, bytes]:
    """Patches in the folder `Era.compat` by path, sorted by file name as in apply-patch.cmake."""
    paths = ollama.paths(commit, folder) if folder else []
    found = [PurePosixPath(path) for path in paths if path.endswith(".patch")]
    patches = {}
    for path in sorted(found, key=lambda path: (path.name, str(path))):
        content = ollama.read_blob(commit, str(path))
        assert content is not None
        patches[str(path)] = content
    return patches


def _link(folder: Path, ollama: _Tree, era: eras.Era, commit: str) -> None:
    """Make `folder` a llama.cpp of links into the tree of Ollama that contains it."""
    folder.mkdir(exist_ok=True)
    inside = [path for place in ollama.repository.paths(commit) if (path := era.origin(place)) is not None]
    for name in {path.partition("/")[0] for path in inside}:
        link, target = folder / name, os.path.relpath(ollama.path / era.place(name), folder)
        if not link.is_symlink() or os.readlink(link) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _refuse_changes(path: Path, repository: Repository) -> None:
    """Raise `DirtyScratch` when the tree differs from its HEAD."""
    if not repository.succeeds("rev-parse", "--verify", "--quiet", "HEAD"):
        foreign = [entry.name for entry in path.iterdir() if entry.name != ".git"]
    else:
        # The index may have outdated times of files that a tool touched without changing them.
        repository.git("update-index", "-q", "--really-refresh", env={"GIT_OPTIONAL_LOCKS": "1"})
        listed = repository.git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
        foreign = [entry[3:] for entry in listed.split("\0") if entry]
    if foreign:
        names = ", ".join(sorted(foreign)[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise DirtyScratch(
            f"{path}: {len(foreign)} changes that the series did not make: {names}",
            hint=f"save what you need, then delete the trees: rm -r {path.parent}",
        )


class _Tree:
    """One scratch work tree."""

    def __init__(self, path: Path, source: Checkout, console: Console) -> None:
        self.path = path
        self.source = source
        self.console = console
        self.repository = Repository(path / ".git", own=True, offline=True, work_tree=path)
        self._switching = path / ".git" / _SWITCHING
        self._prepare()

    def _prepare(self) -> None:
        """Create the repository, or finish a switch that was interrupted."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.repository.git("init", "--quiet", self.path)
        self.repository.borrow(Repository(self.source.git_dir))
        for key, value in {"core.autocrlf": "false", "core.sparseCheckout": "true", "gc.auto": "0"}.items():
            self.repository.git("config", key, value)
        self.repository.git("update-ref", f"refs/heads/{_UPSTREAM}", self.source.commit)
        if self._switching.exists():
            for left in self.repository.git_dir.glob("*.lock"):
                left.unlink()
            self._leave_out_missing()
            branch, commit = self._switching.read_text().split()
            self.repository.git("read-tree", "--reset", "-u", commit)
            self._point_head(branch, commit)

    def refuse_changes(self) -> None:
        """Raise `DirtyScratch` when the tree differs from its HEAD."""
        _refuse_changes(self.path, self.repository)

    def commit(self, diffs: Mapping[str, bytes], message: str) -> str:
        """Apply the diffs to upstream's commit, in order, and commit the result; the work tree stays as it is.

        A diff that the tree already contains is skipped, as in Ollama's own build.
        """
        upstream = self.source.commit
        dates = self.repository.git("show", "--no-patch", "--format=%ct +0000", upstream).strip()
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.repository.git("read-tree", upstream, env=env)
            for name, diff in diffs.items():
                file = Path(folder) / "diff"
                file.write_bytes(diff)
                if not diff.strip() or self.repository.succeeds(
                    "apply", "--cached", "--reverse", "--check", file, env=env
                ):
                    continue
                self.repository.git(
                    *("apply", "--cached", "--whitespace=nowarn", file),
                    env=env,
                    failure=PatchFailed,
                    hint=f"{name} does not fit {self.source.target} {self.source.describe}: run ./inv series.check",
                )
            tree = self.repository.git("write-tree", "--missing-ok", env=env).strip()
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", _NAME), ("EMAIL", _EMAIL), ("DATE", dates))
        }
        return self.repository.git("commit-tree", tree, "-p", upstream, "-m", message, env=identity).strip()

    def switch(self, branch: str, commit: str) -> None:
        """Make the work tree the files of `commit`, writing only those that differ, and HEAD its branch."""
        old = "HEAD" if self.repository.succeeds("rev-parse", "--verify", "--quiet", "HEAD") else None
        write_bytes(self._switching, f"{branch} {commit}\n".encode())
        self._leave_out_missing()
        self.repository.git("read-tree", "-m", "-u", *([old] if old else []), commit)
        self._point_head(branch, commit)

    def _point_head(self, branch: str, commit: str) -> None:
        self.repository.git("update-ref", f"refs/heads/{branch}", commit)
        self.repository.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        self._switching.unlink()

    def _leave_out_missing(self) -> None:
        """Exclude files whose contents the sources lack from the checkout.

        Some mirrors lack large test data. A file that a build reads must be present.
        """
        wanted = missing_blobs(self.repository, self.source.commit)
        paths = []
        if wanted:
            for entry in self.repository.git("ls-tree", "-r", "-z", self.source.commit).split("\0")[:-1]:
                meta, _, path = entry.partition("\t")
                if meta.split()[2] in wanted:
                    paths.append(path)
            needed = [p for p in paths if PurePosixPath(p).suffix in _BUILT_FROM and not _NOT_BUILT.search(p)]
            if needed:
                raise FetchFailed(
                    f"{self.source.git_dir}: the contents of {len(needed)} source files at "
                    f"{self.source.commit[:12]} are missing, such as {needed[0]}",
                    hint="it is a partial clone: name its URL instead, or a full clone",
                )
            self.console.warn(f"{self.source.target}: left out, because their contents are missing: {', '.join(paths)}")
        patterns = ["/*", *("!/" + _GLOB.sub(r"\\\g<0>", path) for path in paths)]
        sparse = self.repository.git_dir / "info" / "sparse-checkout"
        write_bytes(sparse, "".join(f"{pattern}\n" for pattern in patterns).encode(errors="surrogateescape"))
