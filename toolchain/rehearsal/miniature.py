"""The miniature upstream of tests/upstream as two git repositories, for rehearsal and tests.

Authors and dates are fixed, so the commit ids depend only on the trees. The llama.cpp of the miniature has a history
as long as the build number that its Ollama pins: parts of the series are chosen by that number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.checkout import MINIATURE
from ..core.errors import CommandFailed
from ..core.records import record
from ..sources.repository import Repository
from .miniature_split import split

OLLAMA_VERSION = "0.33.0"

_COMMITTER = b"The miniature <miniature@example.invalid> 1767225600 +0000"


@record
class Miniature:
    """Two repositories with clean work trees, at branch main."""

    ollama: Path
    llama_cpp: Path


def materialize(folder: Path, *, split_kernels: bool = False) -> Miniature:
    """Make `folder`/ollama (tagged v0.33.0) and `folder`/llama.cpp (tagged with the build that Ollama pins).

    `split_kernels` uses llama.cpp's Metal layout since August 2026. Neither repository may exist yet.
    Raises `CommandFailed` when this checkout lacks the trees.
    """
    if not (MINIATURE / "ollama" / "LLAMA_CPP_VERSION").is_file():
        raise CommandFailed(f"{MINIATURE}: the miniature upstream is missing", hint="use a complete checkout")
    pin = (MINIATURE / "ollama" / "LLAMA_CPP_VERSION").read_text().strip()
    miniature = Miniature(ollama=folder / "ollama", llama_cpp=folder / "llama.cpp")
    _commit(miniature.ollama, _files("ollama"), tag=f"v{OLLAMA_VERSION}", commits=1)
    files = _files("llama.cpp")
    if split_kernels:
        files = split(files, MINIATURE / "split")
    _commit(miniature.llama_cpp, files, tag=pin, commits=int(pin.removeprefix("b")))
    return miniature


def _files(tree: str) -> dict[str, bytes]:
    root = MINIATURE / tree
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _commit(path: Path, files: Mapping[str, bytes], *, tag: str, commits: int) -> None:
    """A repository whose first commit has all files; the others are empty."""
    path.mkdir(parents=True)
    with Repository(path / ".git", own=True, offline=True, work_tree=path) as repository:
        repository.git("init", "--quiet", "--initial-branch=main", path)
        repository.git("fast-import", "--quiet", stdin=b"".join(_stream(files, tag, commits)))
        repository.git("reset", "--quiet", "--hard")


def _stream(files: Mapping[str, bytes], tag: str, commits: int) -> Iterator[bytes]:
    """Input of git fast-import: a commit without a parent named builds on the one before it."""
    for number in range(1, commits + 1):
        message = f"build {number}".encode() if commits > 1 else b"the miniature"
        yield b"commit refs/heads/main\ncommitter %s\ndata %d\n%s\n" % (_COMMITTER, len(message), message)
        if number == 1:
            for name, data in files.items():
                yield b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data)
    yield b"reset refs/tags/%s\nfrom refs/heads/main\n" % tag.encode()
