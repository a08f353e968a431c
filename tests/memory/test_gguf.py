from __future__ import annotations

import http.server
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gguf as reference
import pytest

from tests.answering import answering
from toolchain.core.errors import ModelInvalid
from toolchain.models.memory import cursor, gguf, origin

from . import models


class Bytes:
    """A source in memory."""

    def __init__(self, data: bytes) -> None:
        self.name = "bytes"
        self.size = len(data)
        self.data = data

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        return self.data[offset : offset + length]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(pairs: list[bytes], tensors: list[bytes], *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs + tensors)


def test_every_model_is_read_as_by_the_reference(tiny: dict[str, Path]) -> None:
    for path in tiny.values():
        found, expected = gguf.load(str(path)), reference.GGUFReader(path)
        assert [(one.name, one.shape, one.type, one.bytes) for one in found.tensors] == [
            (one.name, tuple(map(int, one.shape)), one.tensor_type.name, one.n_bytes) for one in expected.tensors
        ]
        assert (found.size, found.header_only, found.parts) == (path.stat().st_size, False, (str(path),))
        for key, field in expected.fields.items():
            if not key.startswith("GGUF."):
                kept, stated = found.metadata[key], field.contents()
                if isinstance(kept, gguf.Omitted):
                    assert kept.count == len(stated)
                else:
                    assert (list(kept) if isinstance(kept, tuple) else kept) == stated


def test_a_file_that_ends_with_its_header(large: dict[str, Path]) -> None:
    found = gguf.load(str(large["gemma3_27b"]))
    assert found.header_only
    assert found.tensor_bytes == 16_540_125_824


def test_version_2_and_an_alignment() -> None:
    data = header([number("general.alignment", 64)], [tensor("a", (3,), 0, 0), tensor("b", (32,), 8, 64)], version=2)
    data += b"\0" * (-len(data) % 64 + 64 + 34)
    found = gguf.parse(Bytes(data))
    assert [one.bytes for one in found.tensors] == [12, 34]
    with pytest.raises(ModelInvalid, match="truncated"):
        gguf.parse(Bytes(data[:-1]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGML" + bytes(40), "not a GGUF file"),
        (b"GG", "truncated: 4 bytes"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "at byte 4: a big-endian file"),
        (header([], [], version=1), "GGUF version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "1152921504606846976 tensors"),
        (header([text("k") + struct.pack("<I", 77)], []), "a value of type 77"),
        (header([text("k") + struct.pack("<IIQ", 9, 9, 1)], []), "an array of type 9"),
        (header([text("k") + struct.pack("<IIQ", 9, 8, 1 << 61)], []), "an array of 2305843009213693952 texts"),
        (header([text("k") + struct.pack("<IIQ", 9, 10, 1 << 61)], []), "truncated: 18446744073709551616 bytes"),
        (header([text("k") + struct.pack("<IQ", 8, 1 << 63)], []), "a text of 9223372036854775808 bytes"),
        (header([number("k", 1), number("k", 2)], []), "'k' occurs twice"),
        (header([number("general.alignment", 0)], []), "an alignment of 0"),
        (header([number("general.alignment", 24)], []), "an alignment of 24"),
        (header([], [tensor("t", (), 8, 0)]), "rows of 1 in 't' are not whole blocks of Q8_0"),
        (header([], [tensor("t", (1,) * 5, 0, 0)]), "'t' has 5 dimensions"),
        (header([], [tensor("t", (1 << 40, 1 << 40), 0, 0)]), "'t' has the shape"),
        (header([], [tensor("t", (1 << 50,), 0, 0)]), "'t' would end at 4503599627370496 of the data"),
        (header([], [tensor("t", (33,), 8, 0)]), "rows of 33 in 't' are not whole blocks of Q8_0"),
        (header([], [tensor("t", (32,), 250, 0)]), "ggml type 250, unknown to the gguf package .*: it is newer, or"),
        (header([], [tensor("t", (32,), 31, 0)]), "ggml type 31, .*: it is older, or another fork's"),
        (header([], [tensor("t", (32,), 0, 32)]), "'t' starts at 32 of the data"),
        (header([], [tensor("t", (8,), 0, 0), tensor("t", (8,), 0, 32)]), "'t' occurs twice"),
        (header([], [tensor("t", (8,), 0, 0)]) + bytes(30), "truncated: the tensors end at byte"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ModelInvalid, match=message):
        gguf.parse(Bytes(data))


NAMED = text("general.architecture") + struct.pack("<I", 8) + text("llama")


@pytest.mark.parametrize("pad", [0, 1, 31])
def test_a_file_that_ends_without_padding(pad: int) -> None:
    """As llama.cpp: a file without tensors may end with its header, a last tensor with its data."""
    nothing = gguf.parse(Bytes(header([NAMED], []) + bytes(pad)))
    assert (nothing.tensors, nothing.header_only) == ((), False)
    begun = header([NAMED], [tensor("t", (5,), 0, 0)])
    found = gguf.parse(Bytes(begun + bytes(-len(begun) % 32 + 20 + pad)))
    assert (found.tensor_bytes, found.header_only) == (20, False)
    with pytest.raises(ModelInvalid, match="truncated"):
        gguf.parse(Bytes(begun + bytes(-len(begun) % 32 + 19)))


def test_tensors_without_values_and_without_dimensions() -> None:
    """llama.cpp takes both: nothing, and one number."""
    data = header([NAMED], [tensor("none", (64, 0), 8, 0), tensor("one", (), 0, 0)])
    found = gguf.parse(Bytes(data + bytes(-len(data) % 32 + 4)))
    assert [(one.shape, one.bytes) for one in found.tensors] == [((64, 0), 0), ((), 4)]


def test_a_type_of_the_pinned_llama_cpp() -> None:
    """Q2_0 came with llama.cpp b10488, and is not in every release of the gguf package."""
    data = header([NAMED], [tensor("t", (128,), 42, 0)])
    (found,) = gguf.parse(Bytes(data + bytes(-len(data) % 32 + 36))).tensors
    assert (found.type, found.bytes) == ("Q2_0", 36)


def test_long_texts_are_skipped() -> None:
    long = text("tokenizer.huggingface.json") + struct.pack("<I", 8) + text("x" * (1 << 20) + "x")
    found = gguf.parse(Bytes(header([long, number("n", 7)], [])))
    assert found.metadata == {"tokenizer.huggingface.json": gguf.Omitted((1 << 20) + 1), "n": 7}


@pytest.mark.parametrize("kind", ["arrays", "texts", "names", "vocabulary"])
def test_one_bound_on_all_that_a_header_leaves_in_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "KEPT_LIMIT", 1 << 20)
    monkeypatch.setattr(cursor, "_MAX_TEXTS", 1000)
    keys = [text(f"k{number_}") for number_ in range(100)]
    pairs, tensors = {
        "arrays": ([key + struct.pack("<IIQ1000B", 9, 0, 1000, *bytes(1000)) for key in keys], []),
        "texts": ([key + struct.pack("<I", 8) + text("x" * 20_000) for key in keys], []),
        "names": ([], [tensor(f"t{number_}", (0,), 0, 0) for number_ in range(3000)]),
        "vocabulary": ([key + struct.pack("<IIQ", 9, 8, 100) + text("") * 100 for key in keys], []),
    }[kind]
    words = "an array of 100 texts" if kind == "vocabulary" else "more memory than the limit of 1 MiB"
    with pytest.raises(ModelInvalid, match=words):
        gguf.parse(Bytes(header(pairs, tensors)))


# -- several files ---------------------------------------------------------------------------------


def _split(folder: Path, count: int = 2) -> list[Path]:
    parts = []
    for number_ in range(count):
        spec = models.dense(layers=2)
        own = [one for index, one in enumerate(spec.tensors) if index % count == number_]
        extra = {"split.no": number_, "split.count": count, "split.tensors.count": len(spec.tensors)}
        path = folder / f"m-{number_ + 1:05}-of-{count:05}.gguf"
        part = models.Spec(spec.architecture, spec.metadata if number_ == 0 else {}, own)
        parts.append(models.write(path, part, extra=extra))
    return parts


def test_parts_are_read_from_any_of_them(tmp_path: Path) -> None:
    parts = _split(tmp_path, 3)
    whole = models.dense(layers=2)
    for part in parts:
        found = gguf.load(str(part))
        assert (len(found.parts), len(found.tensors)) == (3, len(whole.tensors))
        assert found.metadata["llama.block_count"] == 2
        assert found.size == sum(path.stat().st_size for path in parts)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = _split(tmp_path)
    second.rename(tmp_path / "kept")
    with pytest.raises(ModelInvalid, match="no such file"):
        gguf.load(str(first))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelInvalid, match="is not part 2 of 2"):
        gguf.load(str(first))
    first.rename(tmp_path / "other.gguf")
    with pytest.raises(ModelInvalid, match="one of 2 files"):
        gguf.load(str(tmp_path / "other.gguf"))


# -- over HTTP -------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    root: ClassVar[Path]
    fault: ClassVar[str]
    served: ClassVar[int]

    def do_GET(self) -> None:
        if self.path == "/loop.gguf":
            self._answer(302, b"", Location="/loop.gguf")
            return
        path = self.root / self.path.strip("/")
        if not path.is_file():
            self._answer(404, b"")
            return
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match
        begin, end = int(match[1]), int(match[2]) + 1
        if self.fault == "whole":
            self._answer(200, data)
            return
        size = len(data) - (self.fault == "grows") * (begin == 0)
        stated = f"bytes {begin + (self.fault == 'other')}-{end - 1}/{size}"
        body = data[begin:end]
        body = body[:-1] if self.fault == "short" else body + b"x" * (self.fault == "long")
        type(self).served += len(body)
        self._answer(206, body, **{"Content-Range": stated})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.fault == "slow":
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                time.sleep(0.02)
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early is what some tests are about."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    _Handler.root, _Handler.fault, _Handler.served = tmp_path, "", 0
    with answering(_Server(("127.0.0.1", 0), _Handler)) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_header_by_ranges(site: str, tmp_path: Path) -> None:
    path = models.write(tmp_path / "m.gguf", models.dense(layers=8, embedding=512, feed_forward=1024))
    found = gguf.load(f"{site}/m.gguf")
    assert found.tensors == gguf.load(str(path)).tensors
    assert _Handler.served < found.size / 4
    parts = _split(tmp_path)
    assert gguf.load(f"{site}/{parts[0].name}").parts == tuple(f"{site}/{part.name}" for part in parts)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("whole", "ignores range requests"),
        ("other", "the server sends others"),
        ("short", "expected 1 bytes, received 0"),
        ("long", "expected 1 bytes, received 2"),
        ("grows", "the file changed while it was read"),
    ],
)
def test_servers_that_do_something_else(site: str, tmp_path: Path, fault: str, message: str) -> None:
    models.write(tmp_path / "m.gguf", models.dense(layers=40, embedding=512, feed_forward=1024))
    _Handler.fault = fault
    if fault == "grows":
        # the header takes more than one request when there is a large vocabulary before the tensors
        spec = models.dense(layers=2)
        padded = {f"filler.{index}": index for index in range(60_000)}
        models.write(tmp_path / "m.gguf", spec, extra=padded)
    with pytest.raises(ModelInvalid, match=message):
        gguf.load(f"{site}/m.gguf")


def test_a_server_that_is_too_slow(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.write(tmp_path / "m.gguf", models.dense(layers=2))
    monkeypatch.setattr(origin, "_REQUEST_S", 0.2)
    _Handler.fault = "slow"
    with pytest.raises(ModelInvalid, match="not read after"):
        gguf.load(f"{site}/m.gguf")


def test_urls_that_lead_nowhere(site: str) -> None:
    with pytest.raises(ModelInvalid, match="answers 404"):
        gguf.load(f"{site}/none.gguf")
    with pytest.raises(ModelInvalid, match="no answer"):
        gguf.load(f"{site}/loop.gguf")
    with pytest.raises(ModelInvalid, match="no answer"):
        gguf.load("http://127.0.0.1:9/m.gguf")
    with pytest.raises(ModelInvalid, match="no such file"):
        gguf.load("ftp://127.0.0.1/m.gguf")
