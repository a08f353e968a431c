"""The same release gives the same tar on every machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.publishing import packs
from toolchain.build import check
from toolchain.core.console import Step
from toolchain.core.errors import ReleaseInvalid
from toolchain.publishing import archive
from toolchain.publishing.published import PublishedRelease

QUIET = Step(lambda *_: None)
PACK = """
import json, os, sys
from pathlib import Path
from toolchain.build import check
from toolchain.core.console import Step
from toolchain.core.records import to_builtins
from toolchain.publishing import archive
os.umask(int(sys.argv[3], 8))
folder = Path(sys.argv[1])
print(json.dumps(to_builtins(archive.write(folder, check(folder), Path(sys.argv[2]), Step(lambda *_: None)))))
"""


def moved(folder: Path, to: Path, *, backwards: bool, mtime: int) -> Path:
    """A copy of a release as another machine might have it: other times, other order in the folders."""
    for name in sorted((path.relative_to(folder) for path in folder.rglob("*")), reverse=backwards):
        source, target = folder / name, to / name
        if source.is_dir() and not source.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        os.utime(target, (mtime, mtime), follow_symlinks=False)
    return to


def test_two_machines_pack_the_same_bytes(tmp_path: Path) -> None:
    folder = packs.linux(tmp_path / "workspace")
    tmp_path.chmod(0o755)
    results = []
    for name, umask, zone, user in (("one", "022", "UTC", 0), ("two", "077", "Asia/Tokyo", 4321)):
        place = moved(folder, tmp_path / name / "release", backwards=name == "two", mtime=1_500_000_000 + user)
        (place / ".DS_Store").write_bytes(b"Finder")
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, user, user, follow_symlinks=False)
        environment = {"LC_ALL": "C" if user else "C.UTF-8", "TZ": zone, "PYTHONHASHSEED": str(user), "HOME": "/"}
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{PACK}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, place, place.parent / "x.tar.gz", umask],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append((json.loads(done.stdout), (place.parent / "x.tar.gz").read_bytes()))
    assert results[0] == results[1]


def test_another_tar_reads_it_alike(packed: tuple[Path, PublishedRelease], tmp_path: Path) -> None:
    folder, release = packed
    subprocess.run(["tar", "xzf", folder / release.archive.name, "-C", tmp_path], check=True)
    assert check(tmp_path / release.id).files == release.files
    with tarfile.open(folder / release.archive.name) as tar:
        members = tar.getmembers()
        assert [one.name for one in members] == sorted(one.name for one in members)
        assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {(0, 0, "", "", 1785542400)}
        assert {one.mode for one in members} == {0o755, 0o644, 0o777}
    raw = (folder / release.archive.name).read_bytes()
    assert release.archive.tar_sha256 == hashlib.sha256(gzip.decompress(raw)).hexdigest()
    assert release.archive.tar_size == len(gzip.decompress(raw))
    assert raw[3] == 0, "no file name and no comment in the gzip header"


def test_a_file_that_changes_meanwhile_is_not_packed(tmp_path: Path) -> None:
    folder = packs.linux(tmp_path)
    release = check(folder)
    for name, change in {
        "bin/ollama": lambda path: path.write_bytes(b"\x7fELF other"),
        "lib/ollama/libx.so.1": lambda path: (path.unlink(), path.symlink_to("empty")),
        "licenses/ollama.txt": lambda path: (path.unlink(), path.mkdir()),
    }.items():
        place = moved(folder, tmp_path / name.replace("/", "-"), backwards=False, mtime=0)
        change(place / name)  # type: ignore[no-untyped-call]
        with pytest.raises(ReleaseInvalid, match=Path(name).name):
            archive.write(place, release, tmp_path / "x.tar.gz", QUIET)


@pytest.mark.parametrize("created", ["yesterday", "2026-11-26T15:21:08", "1960-01-01T00:00:00+00:00"])
def test_a_release_without_a_time_is_not_packed(tmp_path: Path, created: str) -> None:
    folder = packs.linux(tmp_path)
    with pytest.raises(ReleaseInvalid, match="time of its build"):
        archive.write(folder, replace(check(folder), created=created), tmp_path / "x.tar.gz", QUIET)
