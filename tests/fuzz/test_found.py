"""What fuzzing found, each as a small case with the value that is right."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import pytest

from toolchain.core.errors import ToolchainError
from toolchain.fleet.journal import JOURNAL, Journal
from toolchain.publishing import testresult
from toolchain.series.edit import require_path
from toolchain.service import propertylist
from toolchain.serving import cachelog

_CACHE = (
    "llama_kv_cache: size = 8.50 MiB ( 512 cells, 8 layers, 1/1 seqs), K (turbo4): 4.25 MiB, V (turbo4): 4.25 MiB\n"
    "llama_kv_cache: K of attention layers {} (of 8): turbo4, 2.00 MiB\n"
)


@pytest.mark.parametrize(("spans", "layers"), [("0-3,6", (0, 1, 2, 3, 6)), ("0-8", ()), ("0-9999," * 500 + "0", ())])
def test_a_log_that_states_more_layers_than_there_are(spans: str, layers: tuple[int, ...]) -> None:
    (found,) = cachelog.stated(_CACHE.format(spans))
    assert [part.layers for part in found.proof.parts] == ([layers] if layers else [])


def shared(levels: int, width: int) -> bytes:
    """A binary property list whose every level is a list of the next one, `width` times."""
    objects = [b"\xd1\x01\x02", b"\x57Program"]
    objects += [b"\xaf\x10" + bytes((width,)) + bytes((3 + level,)) * width for level in range(levels)]
    objects.append(b"\x51x")
    offsets = [8 + sum(map(len, objects[:number])) for number in range(len(objects))]
    table = b"".join(struct.pack(">I", offset) for offset in offsets)
    return (
        b"bplist00"
        + b"".join(objects)
        + table
        + struct.pack(">6xBBQQQ", 4, 1, len(objects), 0, 8 + sum(map(len, objects)))
    )


def test_a_property_list_that_stands_for_gigabytes(tmp_path: Path) -> None:
    assert propertylist.entries(shared(2, 3)) == {"Program": "[['x', 'x', 'x'], ['x', 'x', 'x'], ['x', 'x', 'x']]"}
    bomb = tmp_path / "io.a.plist"
    bomb.write_bytes(shared(20, 100))
    assert propertylist.entries(bomb.read_bytes()) == {}
    assert (propertylist.program(bomb), propertylist.user_name(bomb)) == ("?", "")


def test_a_property_list_of_thousands_of_levels(tmp_path: Path) -> None:
    deep = tmp_path / "io.a.plist"
    deep.write_bytes(b"<plist><dict><key>Program</key>" + b"<array>" * 5000 + b"</array>" * 5000 + b"</dict></plist>")
    assert propertylist.program(deep) == "?"


@pytest.mark.parametrize("at", ["yesterday", "", "2026-11-26T18:00:00"])
def test_an_event_without_a_time(tmp_path: Path, at: str) -> None:
    (tmp_path / JOURNAL).write_text(
        f'{{"at":"2026-11-26T18:00:00Z","event":"started"}}\n{{"at":"{at}","event":"resumed"}}\n'
    )
    with pytest.raises(ToolchainError, match=rf"{JOURNAL}:2: no line of a journal"):
        Journal(tmp_path).events()


def test_an_event_of_a_thousand_levels(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text(
        '{"at":"2026-11-26T18:00:00Z","event":"started","x":' + "[" * 9000 + "]" * 9000 + "}\n"
    )
    with pytest.raises(ToolchainError, match=rf"{JOURNAL}:1: "):
        Journal(tmp_path).events()


@pytest.mark.parametrize("link", [False, True])
def test_an_archive_that_is_no_first_run(tmp_path: Path, link: bool) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("summary.json")
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, "summary.json"
        archive.addfile(member)
    data = gzip.compress(raw.getvalue(), mtime=0)
    path = tmp_path / "first.tar.gz"
    path.write_bytes(data if link else data[:20] + b"\xff" * 20)
    with pytest.raises(ValueError, match=r"."):
        testresult.summary_in(path)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\0b", "a\nb", "x" * 300])
def test_names_that_a_series_may_not_write(path: str) -> None:
    with pytest.raises(ValueError, match=r"^file "):
        require_path(path)
