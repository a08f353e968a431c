"""The volume of the workspace: what it promises, and what a copy on it loses."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from ...core import records
from ...deploy.store import copy_file
from ..assumption import MACOS, Probe, Verdict, assumed, judged, probed, untested
from ..bench import Bench

_READS = 10_000
_FLUSHES = 20
_QUARANTINE = "com.apple.quarantine"
_MARK = "0081;00000000;firstrun;"
_HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def _full_sync(bench: Bench) -> Verdict:
    if sys.platform != "darwin":
        return untested(f"needs {MACOS}")
    file = bench.folder / "flushed"
    times = []
    with file.open("wb") as opened:
        for _ in range(_FLUSHES):
            opened.write(b"x" * 4096)
            opened.flush()
            started = time.monotonic()
            try:
                fcntl.fcntl(opened.fileno(), fcntl.F_FULLFSYNC)
            except OSError as error:
                return judged(False, f"F_FULLFSYNC: {error.strerror} ({errno.errorcode.get(error.errno or 0)})")
            times.append(time.monotonic() - started)
    worst, middle = max(times), sorted(times)[len(times) // 2]
    return judged(True, f"F_FULLFSYNC took {middle * 1000:.1f} ms, at most {worst * 1000:.1f} ms, {_FLUSHES} times")


def _folder_sync(bench: Bench) -> Verdict:
    descriptor = os.open(bench.folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        return judged(False, f"fsync of a folder: {error.strerror}")
    finally:
        os.close(descriptor)
    return judged(True, "fsync of a folder succeeds")


def _link_swap(bench: Bench) -> Verdict:
    """As deploy.store.swap does it, with a reader in another thread."""
    link, wrong, ended = bench.folder / "current", list[str](), threading.Event()
    link.symlink_to("one")
    swaps = 0

    def read() -> None:
        try:
            for _ in range(_READS):
                wrong.extend(_misread(link))
        finally:
            ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    temporary = bench.folder / "current.new"
    while not ended.is_set():
        temporary.symlink_to("two" if swaps % 2 == 0 else "one")
        os.replace(temporary, link)
        swaps += 1
    reader.join()
    link.unlink()
    seen = f"wrong {len(wrong)} times: {wrong[0]}" if wrong else "always there"
    reason = f"{_READS} reads while it was swapped {swaps} times: {seen}"
    return judged(not wrong, reason)


def _misread(link: Path) -> Iterator[str]:
    """What is wrong with a link that must lead to one or to two."""
    try:
        where = os.readlink(link)
    except OSError as error:
        yield error.strerror or str(error)
    else:
        if where not in ("one", "two"):
            yield where


def _case(bench: Bench) -> Verdict:
    file = bench.folder / "CasE"
    file.touch()
    kept = "CasE" in os.listdir(bench.folder)  # noqa: PTH208  names as they stand
    sensitive = not (bench.folder / "cAse").exists()
    file.unlink()
    return judged(
        kept, f"the name is {'kept' if kept else 'changed'}; the volume is case-{'' if sensitive else 'in'}sensitive"
    )


def _lock(bench: Bench) -> Verdict:
    """Another process holds the lock, and is killed."""
    file = bench.folder / "lock"
    words = [sys.executable, "-I", "-c", _HOLDS, str(file)]
    with (
        subprocess.Popen(words, cwd=bench.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        file.open("a") as own,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        excluded = not _takes(own.fileno())
        holder.kill()
        holder.wait(10)
        free = _takes(own.fileno())
    before, after = "not taken" if excluded else "taken", "free" if free else "still held"
    return judged(excluded and free, f"while another process holds it: {before}; after that was killed: {after}")


def _takes(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _over_running(bench: Bench) -> Verdict:
    """With a program of its own: a copy of the interpreter would need its library."""
    program, new = bench.folder / "runs", bench.folder / "runs.new"
    if not _compile(bench, program, "#include <unistd.h>\nint main(void) { sleep(60); return 0; }\n"):
        return untested("needs a C compiler", bench.kept[-1])
    with subprocess.Popen([str(program)], cwd=bench.folder, start_new_session=True) as running:
        try:
            new.write_bytes(b"another")
            os.replace(new, program)
            time.sleep(0.2)
            alive = running.poll() is None
        finally:
            running.kill()
        running.wait(10)
    return judged(alive, f"the running program {'goes on' if alive else f'ended with {running.returncode}'}")


def _signature(bench: Bench) -> Verdict:
    program, copy, moved = (bench.folder / name for name in ("signed", "signed.copy", "signed.moved"))
    if not _compile(bench, program, "int main(void) { return 0; }\n"):
        return untested("needs developer tools", bench.kept[-1])
    signed = bench.call(("/usr/bin/codesign", "--force", "--sign", "-", program))
    copy_file(program, copy)
    copy.chmod(0o755)
    copied = bench.call(("/usr/bin/codesign", "-v", "--strict", copy))
    copy.rename(moved)
    renamed = bench.call(("/usr/bin/codesign", "-v", "--strict", moved))
    runs = bench.call((moved,))
    seen = (signed, copied, renamed, runs)
    return judged(
        not any(one.code for one in seen),
        f"codesign -v after a copy: {copied.code}, after a rename: {renamed.code}; it ends with {runs.code}",
        *seen,
    )


def _quarantine(bench: Bench) -> Verdict:
    file, copy = bench.folder / "downloaded", bench.folder / "copied"
    file.write_bytes(b"x")
    marked = bench.call(("/usr/bin/xattr", "-w", _QUARANTINE, _MARK, file))
    copy_file(file, copy)
    seen = bench.call(("/usr/bin/xattr", copy))
    if marked.code != 0:
        return untested("the attribute cannot be set", marked)
    return judged(
        _QUARANTINE not in seen.output, f"attributes of the copy: {seen.output.strip() or 'none'}", marked, seen
    )


def _cut(bench: Bench) -> Verdict:
    """What an atomic write promises: a reader sees the old file or the new one."""
    file, wrong, ended = bench.folder / "record", list[int](), threading.Event()
    records.write_bytes(file, b"a" * 65536)

    def write() -> None:
        try:
            for number in range(20):
                records.write_bytes(file, (b"b" if number % 2 == 0 else b"a") * 65536)
        finally:
            ended.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    reads = 0
    while not ended.is_set():
        data = file.read_bytes()
        reads += 1
        if len(data) != 65536 or len(set(data)) != 1:
            wrong.append(len(data))
    writer.join()
    return judged(
        not wrong,
        f"{reads} reads while it was written 20 times: {f'{len(wrong)} were mixed' if wrong else 'all whole'}",
    )


def _space(bench: Bench) -> Verdict:
    free, needed = shutil.disk_usage(bench.folder).free / 1e9, bench.run.config.build.min_free_gb
    return judged(free >= needed, f"{free:.1f} GB are free, and a build needs {needed:g} GB")


def _compile(bench: Bench, program: Path, source: str) -> bool:
    """Whether a C program could be made; stubs are not run."""
    if bench.on_mac and bench.call(("/usr/bin/xcode-select", "-p")).code != 0:
        return False
    file = program.with_suffix(".c")
    file.write_text(source)
    compiler = ("/usr/bin/xcrun", "clang") if bench.on_mac else ("cc",)
    return bench.call((*compiler, "-o", program, file), timeout=120).code == 0


_assumption = partial(assumed, "disk")

DISK = probed(
    "disk",
    Probe(
        _assumption(
            "full-sync",
            "The workspace's volume takes F_FULLFSYNC, which reaches the disk as fsync does not on a Mac.",
            f"{_FLUSHES} times, with times.",
            MACOS,
        ),
        _full_sync,
    ),
    Probe(
        _assumption("folder-sync", "A folder can be flushed after a rename in it.", "fsync of a folder."), _folder_sync
    ),
    Probe(
        _assumption(
            "link-swap",
            "A link that is replaced by a rename is never absent, and never a third one.",
            f"{_READS} reads meanwhile.",
        ),
        _link_swap,
    ),
    Probe(
        _assumption(
            "atomic-write",
            "A file that is replaced by a rename is the old one or the new one, whole.",
            "Read it while it is written.",
        ),
        _cut,
    ),
    Probe(
        _assumption(
            "case",
            "The volume keeps the case of a name, whether or not it tells names apart by it.",
            "Make a file and list it.",
        ),
        _case,
    ),
    Probe(
        _assumption(
            "lock",
            "A lock (flock) keeps another process out, and ends with the process that holds it.",
            "Kill its holder.",
        ),
        _lock,
    ),
    Probe(
        _assumption(
            "replace-running",
            "A program that runs goes on when another file is renamed over it.",
            "Rename a file over a program that sleeps.",
        ),
        _over_running,
    ),
    Probe(
        _assumption(
            "signature",
            "An ad hoc signature holds after the toolkit's copy and after a rename.",
            "codesign -v --strict.",
            MACOS,
        ),
        _signature,
    ),
    Probe(
        _assumption(
            "quarantine",
            "The toolkit's copy of a file has no quarantine attribute.",
            "xattr of a copy of a marked file.",
            MACOS,
        ),
        _quarantine,
    ),
    Probe(
        _assumption("space", "The workspace's volume has room for a build.", "Compare with build.min_free_gb."), _space
    ),
)
