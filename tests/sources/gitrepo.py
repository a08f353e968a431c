"""Real git repositories for tests, made in a few milliseconds each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

WEB = "noreply@github.com"


def git(where: Path, *args: str, env: Mapping[str, str] | None = None, stdin: bytes | None = None) -> str:
    """Run git in `where` as nobody in particular, with no configuration but the repository's own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    for who in ("AUTHOR", "COMMITTER"):
        clean |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.org"}
        clean[f"GIT_{who}_DATE"] = "2026-08-01T10:00:00+02:00"
    done = subprocess.run(
        ["git", *args], cwd=where, env={**clean, **(env or {})}, input=stdin, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape").strip()


def new(path: Path, *, bare: bool = False) -> Path:
    """An empty repository whose branch is master."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=master", *(["--bare"] if bare else []))
    git(path, "config", "uploadpack.allowFilter", "true")
    git(path, "config", "uploadpack.allowAnySHA1InWant", "true")
    return path


def commit(where: Path, files: Mapping[str, str | bytes], message: str = "change") -> str:
    """Write the files and commit everything; returns the commit id."""
    for name, content in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(where, "rev-parse", "HEAD")


def history(where: Path, commits: Sequence[tuple[str, Sequence[int], str, str]]) -> list[str]:
    """Commits given as (branch, positions of the parents, committer, subject), all at once; returns their ids."""
    stream: list[bytes] = []
    for position, (branch, parents, committer, subject) in enumerate(commits):
        content = f"{position}\n".encode()
        stream.append(f"commit refs/heads/{branch}\nmark :{position + 1}\n".encode())
        stream.append(f"author Ada <ada@example.org> {1_750_000_000 + position} +0000\n".encode())
        stream.append(f"committer C <{committer}> {1_750_000_000 + position} +0000\n".encode())
        stream.append(f"data {len(subject.encode())}\n{subject}\n".encode())
        for index, parent in enumerate(parents):
            stream.append(f"{'merge' if index else 'from'} :{parent + 1}\n".encode())
        stream.append(b"M 100644 inline position\n" + f"data {len(content)}\n".encode() + content + b"\n")
    marks = where / "marks"
    git(where, "fast-import", "--quiet", "--force", f"--export-marks={marks}", stdin=b"".join(stream))
    ids = dict(line.split() for line in marks.read_text().splitlines())
    marks.unlink()
    return [ids[f":{position + 1}"] for position in range(len(commits))]


def snapshot(where: Path) -> dict[str, bytes]:
    """Every file below a folder with its content and time, to show that nothing was touched."""
    return {
        str(path.relative_to(where)): f"{path.lstat().st_mtime_ns} ".encode() + path.read_bytes()
        for path in sorted(where.rglob("*"))
        if path.is_file()
    }
