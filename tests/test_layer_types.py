"""Rules for single layers, and calibrated keys, on the patched miniature: what is stated, and what a shift keeps."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import requests

from tests.shared import Miniatures
from tests.sources.gitrepo import commit, new
from toolchain import pipeline
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.checkout import MINIATURE
from toolchain.models.memory import gguf as headers
from toolchain.models.quality import calibration_file
from toolchain.models.quality.calibration_file import Origin, Stored
from toolchain.series.facts import read_facts
from toolchain.series.manifest import load as load_series
from toolchain.series.render import outcome_of
from toolchain.series.tree import Tree
from toolchain.serving import cachelog
from toolchain.serving.probe_model import ProbeGeometry, write_probe
from toolchain.sources import Repository

pytestmark = pytest.mark.slow

BLOCKS = 8
CONTEXT = 256
TYPES = load_series().types
CACHE, IMPL = "src/llama-kv-cache.cpp", "src/llama-impl.h"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="module")
def programs(folder: Path, miniatures: Miniatures) -> Path:
    """Where llama-server and llama-bench of the patched miniature lie."""
    run = miniatures.run(folder, miniatures.plain(folder))
    sources = pipeline.prepare(run)
    pipeline.build(run, sources, pipeline.render_series(run, sources), ("llama-bench",))
    (build,) = (run.workspace / "build").glob("*/llama-server")
    return build / "bin"


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    write_probe(folder / "plain.gguf", head_size=64, heads=4, kv_heads=2, layers=BLOCKS, context=1024, seed=11)
    return folder / "plain.gguf"


@pytest.fixture(scope="module")
def hybrid(plain: Path) -> Path:
    """Blocks 1, 2 and 6 do not attend."""
    return _changed(plain, plain.with_name("hybrid.gguf"), without=(1, 2, 6))


@pytest.fixture(scope="module")
def windowed(plain: Path) -> Path:
    """Every third block sees all positions, the others 64 of them; block 3 does not attend."""
    return _changed(plain, plain.with_name("windowed.gguf"), without=(3,), window=64)


def test_layers_are_counted_over_those_that_attend(programs: Path, hybrid: Path, folder: Path) -> None:
    asked = "q8_0:turbo2,first=2:q8_0,last=1:f16"
    with _serving(programs, hybrid, asked, folder / "hybrid.log") as url:
        answer = requests.post(f"{url}/completion", json={"prompt": "a" * 250, "n_predict": 16}, timeout=60).json()
        assert answer["tokens_predicted"] == 16
    (cache,) = _caches(folder / "hybrid.log", layers=5)
    assert cachelog.complaint([cache], asked, _geometry(5), CONTEXT, TYPES) == ""
    assert (cache.proof.type_k, cache.proof.type_v) == ("q8_0", "q8_0+turbo2+f16")
    assert (cache.rotated_k, cache.rotated_v) == (True, True)
    other = cachelog.complaint([cache], "q8_0:turbo2,first=1:q8_0,last=1:f16", _geometry(5), CONTEXT, TYPES)
    assert other == "asked for V of attention layer 1 as turbo2, the log says q8_0"


def test_layers_are_counted_over_both_caches_of_a_window(programs: Path, windowed: Path, folder: Path) -> None:
    asked = "turbo4,layers=1:f16:f16,first=2:turbo3"
    with _serving(programs, windowed, asked, folder / "windowed.log") as url:
        requests.post(f"{url}/completion", json={"prompt": "abc" * 50, "n_predict": 4}, timeout=60).raise_for_status()
    base, swa = _caches(folder / "windowed.log", layers=7)
    assert cachelog.complaint([base, swa], asked, _geometry(7), CONTEXT, TYPES) == ""
    # blocks 2 and 5 see everything; without block 3 they are the attention layers 2 and 4
    assert [part.layers for part in base.proof.parts] == [(2, 4), (2, 4)]
    assert (base.proof.type_k, base.proof.type_v, base.rotated_v) == ("turbo4", "f16", False)
    assert (swa.proof.type_k, swa.proof.type_v, swa.rotated_v) == ("turbo4+f16", "turbo3+f16", True)
    assert "the log states the layers" in cachelog.complaint([base], asked, _geometry(2), CONTEXT, TYPES)


def _shifted(programs: Path, model: Path, types: str, log: Path, tokens: int = 60) -> str:
    """What a model says to a prompt that leaves no room for it, so that the context is shifted once."""
    with _serving(programs, model, types, log) as url:
        body = {"prompt": "xyz" * 83, "n_predict": tokens}
        content = requests.post(f"{url}/completion", json=body, timeout=60).json()["content"]
    assert cachelog.context_shifts(log.read_text()) == 1
    return str(content)


def test_a_shift_moves_unquantized_keys_that_lie_rotated(programs: Path, plain: Path, folder: Path) -> None:
    """One coarser layer has the whole cache rotated; the others' keys must be moved as if they were not."""

    def text(types: str) -> str:
        return _shifted(programs, plain, types, folder / "shift.log", tokens=32)

    assert text("f32,layers=0:q8_0:f32") == text("f32")


@pytest.mark.parametrize(
    ("head_size", "turned", "disabled"), [(96, 96, "0"), (64, 64, "1"), (64, 32, "0"), (64, 32, "1")]
)
def test_a_shift_of_quantized_keys_whether_they_lie_rotated_or_not(
    programs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, head_size: int, turned: int, disabled: str
) -> None:
    """Heads that are no multiple of 64 lie unrotated, and RoPE may turn only the first values of a head."""
    model = folder / f"head-{head_size}-{turned}.gguf"
    with monkeypatch.context() as patched:
        count = gguf.GGUFWriter.add_rope_dimension_count
        patched.setattr(gguf.GGUFWriter, "add_rope_dimension_count", lambda writer, _: count(writer, turned))
        write_probe(model, head_size=head_size, heads=4, kv_heads=2, layers=BLOCKS, context=1024, seed=13)
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", disabled)

    def text(types: str) -> str:
        content = _shifted(programs, model, types, folder / "shift.log")
        rotated = types != "f32" and head_size == 64 and disabled == "0"
        assert f"attn_rot_k = {int(rotated)}" in (folder / "shift.log").read_text()
        return content

    assert text("f32,layers=0:q8_0:f32") == text("f32")


def _calibration_of(model: Path, folder: Path) -> Path:
    """A folder with a calibration of a model: offsets larger than its keys, and scales of 0.7 to 1.4."""
    drawn = np.random.default_rng(5)
    layers = {
        block: Stored(
            offset=8 * drawn.standard_normal((2, 64)).astype(np.float32),
            scale=np.repeat(1.4 ** drawn.uniform(-1, 1, (2, 32)).astype(np.float32), 2, axis=1),
        )
        for block in range(BLOCKS)
    }
    origin = Origin(model=model.name, model_sha256="", text_sha256="", tokens=1, lengths=(1,))
    calibration_file.save(folder, calibration_file.model_key(headers.load(str(model))), layers, origin)
    return folder


@pytest.mark.parametrize("types", ["q8_0:f32", "q8_0,layers=3:f32:f32"])
def test_calibrated_keys_give_the_same_answers(
    programs: Path, plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, types: str
) -> None:
    """Also after a shift, which turns whole keys."""

    def text(types: str) -> str:
        return _shifted(programs, plain, types, folder / "calibrated.log")

    expected = text("f32")
    monkeypatch.setenv(cachelog.CALIBRATION, str(_calibration_of(plain, folder / "calibration")))
    assert text("f32") == expected
    assert cachelog.calibrated_layers((folder / "calibrated.log").read_text()) is None
    assert text(types) == expected
    assert cachelog.calibrated_layers((folder / "calibrated.log").read_text()) == BLOCKS - types.count("layers")


def test_a_saved_slot_is_read_with_the_same_calibration_alone(
    programs: Path, plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, given = folder / "slots", _calibration_of(plain, folder / "calibration")
    slots.mkdir()
    for name in ("without", "with"):
        monkeypatch.setenv(cachelog.CALIBRATION, str(given) if name == "with" else "")
        with _serving(programs, plain, "turbo4", folder / "slots.log", "--slot-save-path", f"{slots}/") as url:
            requests.post(f"{url}/completion", json={"prompt": "xyz", "n_predict": 1}, timeout=60).raise_for_status()
            requests.post(f"{url}/slots/0?action=save", json={"filename": name}, timeout=60).raise_for_status()
            for other in ("without", "with")[: 1 + (name == "with")]:
                done = requests.post(f"{url}/slots/0?action=restore", json={"filename": other}, timeout=60)
                assert done.ok == (other == name), done.text
        said = (folder / "slots.log").read_text()
        assert said.count("saved with another calibration of keys") == (name == "with")
    monkeypatch.setenv(cachelog.CALIBRATION, "")
    with _serving(programs, plain, "turbo4", folder / "slots.log", "--slot-save-path", f"{slots}/") as url:
        done = requests.post(f"{url}/slots/0?action=restore", json={"filename": "with"}, timeout=60)
    assert (done.status_code, "cannot be restored" in done.text) == (400, True)


def test_a_calibration_that_cannot_be_used(
    programs: Path, plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another model are not found, and the log says so; what is wrong with a model's own ends the start."""
    sunk = _changed(plain, folder / "sunk.gguf", without=(), sinks=2)
    given = _calibration_of(plain, folder / "calibration")
    (file,) = given.iterdir()
    other = folder / "other.gguf"
    write_probe(other, head_size=64, heads=4, kv_heads=2, layers=BLOCKS, context=1024, seed=17)
    monkeypatch.setenv(cachelog.CALIBRATION, str(folder / "none"))
    with _serving(programs, other, "turbo4", folder / "none.log"):
        pass
    assert "calibration of keys is off: there is no " in (folder / "none.log").read_text()
    monkeypatch.setenv(cachelog.CALIBRATION, str(given))

    def refused(model: Path) -> str:
        argv: list[str | Path] = [programs / "llama-server", "--model", model, "--cache-type-k", "q8_0", "--port", "0"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    assert "layer 2 has an offset, but attention sinks, so softmax would feel it" in refused(sunk)
    file.write_bytes(file.read_bytes()[:100])
    assert f"{file}: it ends early" in refused(plain)


CALL = "tmp = mul_mat_hadamard(ctx, tmp, rot);"


@pytest.mark.parametrize(
    ("file", "old", "guarded", "status"),
    [
        (CACHE, CALL, CALL, "applies"),
        (CACHE, CALL, f"if (rot) {{\n            {CALL}\n        }}", "upstreamed"),
        (CACHE, CALL, f"if (rot != nullptr)\n            {CALL}", "upstreamed"),
        (CACHE, CALL, "tmp = rot ? mul_mat_hadamard(ctx, tmp, rot) : tmp;", "upstreamed"),
        (CACHE, CALL, "tmp = llama_rotate(ctx, tmp, rot);", "applies"),
        (CACHE, CALL, "tmp = llama_rotate(ctx, rot, tmp);", "broken"),
        (IMPL, "#pragma once", "#pragma once\nt * llama_mul_mat_hadamard(t * rot) {\n    if (!rot) {", "skipped"),
    ],
)
def test_the_guard_of_a_shift_goes_when_upstream_has_its_own(
    tmp_path: Path, file: str, old: str, guarded: str, status: str
) -> None:
    root = MINIATURE / "llama.cpp"
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert old in files[file]
    made = commit(new(tmp_path / "llama.cpp"), {**files, file: files[file].replace(old, guarded)})
    tree = Tree(target="llama.cpp", repository=Repository.open(tmp_path / "llama.cpp"), commit=made, version="10488")
    series = load_series()
    (layers,) = [part for part in series.parts if part.part.concern == "layers"]
    (edit,) = [edit for edit in layers.edits if edit.name == "shift-unrotated"]
    assert outcome_of(edit, layers, tree, read_facts(series, (tree,))).status == status


@pytest.mark.parametrize(
    ("types", "reason"),
    [
        ("turbo2,last=9:q8_0", "cache type rule 'last=9:q8_0': the model has 8 attention layers, counted from 0"),
        ("turbo2,layers=8:q8_0", "cache type rule 'layers=8:q8_0': the model has 8 attention layers"),
        ("turbo2,first=1:turbo9", "'turbo9': no such type; known types are f32, f16, q8_0"),
        ("turbo2,first=0:q8_0", "'first=0:q8_0': that names no layer"),
    ],
)
def test_what_cannot_be_is_one_clear_error_at_the_start(programs: Path, plain: Path, types: str, reason: str) -> None:
    argv: list[str | Path] = [programs / "llama-server", "--model", plain, "--cache-type-v", types, "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert reason in done.stderr.splitlines()[-1]


def test_llama_bench_says_that_it_takes_no_rules(programs: Path, plain: Path) -> None:
    argv: list[str | Path] = [programs / "llama-bench", "-m", plain, "-ctv", "turbo2,first=1:q8_0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "llama-bench takes no rules for single layers" in done.stderr


def _geometry(layers: int) -> ProbeGeometry:
    return ProbeGeometry(head_size=64, heads=4, kv_heads=2, layers=layers, context=1024)


def _caches(log: Path, *, layers: int) -> tuple[cachelog.Cache, ...]:
    return cachelog.caches(log.read_text(), _geometry(layers), TYPES)


def _changed(
    source: Path, target: Path, *, without: tuple[int, ...], window: int = 0, sinks: int | None = None
) -> Path:
    """A copy of a model in which some blocks have no attention, and two of three see a window alone; one has sinks."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        kind = field.types[0]
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    if window:
        writer.add_uint32("llama.attention.sliding_window", window)
        writer.add_uint32("llama.attention.sliding_window_pattern", 3)
    for tensor in reader.tensors:
        if not any(tensor.name.startswith(f"blk.{block}.attn_") for block in without):
            writer.add_tensor(tensor.name, tensor.data)
    if sinks is not None:
        writer.add_tensor(f"blk.{sinks}.attn_sinks.weight", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@contextlib.contextmanager
def _serving(programs: Path, model: Path, types: str, log: Path, *more: str) -> Iterator[str]:
    asked = parse(types)
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        port = str(claim.getsockname()[1])
    argv: list[str | Path] = [programs / "llama-server", "--model", model, "--port", port, "--ctx-size", str(CONTEXT)]
    argv += ["--context-shift", "--keep", "4", "--cache-type-k", str(asked.k), "--cache-type-v", str(asked.v), *more]
    with log.open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(requests.ConnectionError):
                    if requests.get(f"{url}/health", timeout=30).ok:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield url
        finally:
            process.kill()
            process.wait()
