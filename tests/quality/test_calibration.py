"""What keys have in common, on keys that RoPE turned by known angles; how loud their pairs are; the file of both."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf as writer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.conftest import stated
from toolchain.build.quantizers import Floats
from toolchain.core import config
from toolchain.core.cachetypes.table import own
from toolchain.core.console import Console
from toolchain.core.errors import ModelInvalid, StateInvalid
from toolchain.core.run import Run
from toolchain.core.variables import CALIBRATION
from toolchain.models.memory import gguf
from toolchain.models.quality import calibration, calibration_file, offsets, queries, scales
from toolchain.models.quality.calibration_file import Origin, Stored
from toolchain.serving.probe_model import write_probe
from toolchain.stages import CacheType

from .conftest import ROOT
from .test_queries import SIZE, layer

ORIGIN = Origin(model="m.gguf", model_sha256="a", text_sha256="b", tokens=700, lengths=(700,))


def turned(constant: Any, frequency: float, tokens: int, noise: float, seed: int) -> Floats:
    """Keys (tokens, 1, 2): a constant and noise before RoPE, which turns them."""
    rng = np.random.default_rng(seed)
    before = complex(*constant) + noise * (rng.standard_normal(tokens) + 1j * rng.standard_normal(tokens))
    after = before * np.exp(1j * frequency * np.arange(tokens))
    return np.stack([after.real, after.imag], axis=-1).astype(np.float32)[:, None]


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.floats(-4, 4), st.floats(-4, 4)),
    st.floats(1e-6, 1.0),
    st.integers(512, 3000),
    st.integers(0, 2**32 - 1),
)
def test_it_is_the_constant_turned_by_the_mean_of_the_positions(
    constant: tuple[float, float], frequency: float, tokens: int, seed: int
) -> None:
    found = offsets.fit(turned(constant, frequency, tokens, 0.05, seed))[0]
    waves = [np.exp(1j * frequency * np.arange(n)).mean() for n in offsets.lengths(tokens)]
    expected = complex(*constant) * np.mean(waves)
    assert abs(complex(*found) - expected) < 6 * 0.05 / np.sqrt(offsets.SHORTEST)


def test_pairs_that_turn_slowly_have_one_and_fast_ones_have_none() -> None:
    slow, fast = (turned((3, 1), frequency, 2048, 1.0, 5) for frequency in (1e-6, 0.7))
    assert offsets.gain_db(slow, offsets.fit(slow)) > 7  # of (10 + 2) to 2: 7.8 dB
    assert abs(offsets.gain_db(fast, offsets.fit(fast))) < 0.05
    assert offsets.gain_db(np.zeros_like(slow), offsets.fit(np.zeros_like(slow))) == 0


def test_other_keys_of_the_same_constant_gain_as_much_at_each_length() -> None:
    fitted = offsets.fit(turned((3, 1), 2e-4, 4096, 1.0, 1))
    other = turned((3, 1), 2e-4, 4096, 1.0, 2)
    assert all(offsets.gain_db(other[:n], fitted) > 3 for n in (256, 512, 2048, 4096))


def test_what_does_not_pay_on_the_other_text_is_left_out() -> None:
    """Of two heads the first has a constant; the second's is another one in each text."""
    shared = [turned((3, 1), 1e-6, 1024, 1.0, seed) for seed in (1, 2)]
    own = [turned(constant, 1e-6, 1024, 0.3, 3) for constant in ((3, 1), (-3, -1))]
    texts = [np.concatenate(pair, axis=1) for pair in zip(shared, own, strict=True)]
    found, gain = offsets.fit_tested(*texts)
    np.testing.assert_allclose(found[0], (3, 1), atol=0.2)
    assert not found[1].any()
    assert 1 < gain < offsets.gain_db(shared[0], found[:1])


def test_attention_is_the_same_without_the_offset() -> None:
    one = layer(1)
    at = np.arange(len(one.k))
    less = one.k - np.linspace(-3, 3, one.k[0].size, dtype=np.float32).reshape(one.k[0].shape)
    for query in range(len(one.positions)):
        np.testing.assert_allclose(
            queries.weights(one, query, less, at), queries.weights(one, query, one.k, at), atol=2e-6
        )
    assert offsets.why_not(one) == ""


def test_attention_that_feels_it_is_refused() -> None:
    assert "caps its scores" in offsets.why_not(layer(1, cap=30.0))
    assert "sinks" in offsets.why_not(dataclasses.replace(layer(2), sinks=True))


def scaled(seed: int, loud: float, dims: int = SIZE, halves: bool = False) -> queries.AttentionLayer:
    """A layer whose keys are loud in the first pair, where its queries are quiet."""
    one = layer(seed)
    first = scales.pairs(one.k.shape[-1], dims, halves) == 0
    k, q = one.k.copy(), one.q.copy()
    k[..., first] *= loud
    q[..., first] /= loud
    return dataclasses.replace(one, k=k, q=q, rope_dims=dims, rope_halves=halves)


def test_pairs_are_those_that_rope_turns() -> None:
    assert scales.pairs(8, 8, halves=False).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert scales.pairs(8, 8, halves=True).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert scales.pairs(8, 4, halves=True).tolist() == [0, 1, 0, 1, 4, 5, 6, 7]
    assert scales.pairs(6, 2, halves=False).tolist() == [0, 0, 2, 3, 4, 5]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_other_scales_err_less(seed: int, halves: bool) -> None:
    rng = np.random.default_rng(seed)
    keys, asked = np.exp(rng.normal(0, 2, (2, 1, 8)))
    of = scales.pairs(8, 8, halves)
    found = scales.best(keys, asked, of)
    assert np.prod(found) == pytest.approx(1)
    gained = scales.gain_db(keys, asked, found)
    for _ in range(20):
        other = np.exp(rng.normal(0, 1, 4))[of]
        assert scales.gain_db(keys, asked, found * other) < gained + 1e-9
    assert gained >= -1e-9


@pytest.mark.parametrize("halves", [False, True])
def test_loud_pairs_of_keys_are_made_as_loud_as_queries_feel_them(halves: bool) -> None:
    texts = [scaled(seed, 10.0, halves=halves) for seed in (1, 2)]
    none = np.zeros(texts[0].k.shape[1:], np.float32)
    found, gain = scales.fit_tested(texts[0], texts[1], none)
    of = scales.pairs(SIZE, SIZE, halves)
    assert all(len(set(found[head, of == pair])) == 1 for head in range(len(found)) for pair in range(SIZE // 2))
    ratio = found[:, of != 0].mean() / found[:, of == 0].mean()
    assert ratio == pytest.approx(10, rel=0.3)
    assert gain > 3
    one = texts[0]
    group = one.q.shape[1] // one.k.shape[1]
    other = dataclasses.replace(one, q=(one.q / np.repeat(found, group, axis=0)).astype(np.float32))
    at = np.arange(len(one.k))
    for query in range(len(one.positions)):
        np.testing.assert_allclose(
            queries.weights(other, query, one.k * found, at), queries.weights(one, query, one.k, at), atol=2e-5
        )


def test_layers_that_gain_nothing_are_not_scaled() -> None:
    """Where keys and queries are equally loud, on another text, or where nobody knows what RoPE turns."""
    none = np.zeros(layer(1).k.shape[1:], np.float32)
    opposite = scales.fit_tested(scaled(1, 10.0), scaled(2, 0.1), none)
    unknown = scales.fit_tested(scaled(1, 10.0, dims=0), scaled(2, 10.0, dims=0), none)
    for found, gain in (opposite, unknown):
        assert (found == 1).all()
        assert gain == 0


def test_the_file_is_read_back(tmp_path: Path) -> None:
    layers = {
        0: Stored(offset=np.array([[1, 2], [3, 4]], np.float32), scale=np.ones((2, 2), np.float32)),
        7: Stored(offset=np.array([[-0.5, 1e-9]], np.float32), scale=np.array([[0.25, 4]], np.float32)),
    }
    path = calibration_file.save(tmp_path / "new", 0xABC, layers, ORIGIN)
    assert path.name == "0000000000000abc.calibration"
    key, found, origin = calibration_file.load(path)
    assert (key, origin, [*found]) == (0xABC, ORIGIN, [0, 7])
    for number, one in layers.items():
        np.testing.assert_array_equal(found[number].offset, one.offset)
        np.testing.assert_array_equal(found[number].scale, one.scale)
        assert not one.plain
    assert Stored(offset=np.zeros((1, 2), np.float32), scale=np.ones((1, 2), np.float32)).plain


@settings(deadline=None, max_examples=40)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_refused(at: int, bit: int, cut: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    ones = np.ones((1, 8), np.float32)
    path = calibration_file.save(tmp_path_factory.mktemp("damaged"), 5, {3: Stored(offset=ones, scale=ones)}, ORIGIN)
    data = bytearray(path.read_bytes())
    end = data.index(b"{")  # what is behind is for people alone
    at %= end
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(StateInvalid, match=r"\.calibration: "):
        calibration_file.load(path)
    path.unlink()
    with pytest.raises(StateInvalid, match="No such file"):
        calibration_file.load(path)


def test_models_are_told_by_their_norms(tmp_path: Path, model: Path) -> None:
    header = gguf.load(str(model))
    tensors = {one.name: one.data.tobytes() for one in writer.GGUFReader(model).tensors}
    joined = tensors["output_norm.weight"] + tensors["blk.0.attn_norm.weight"]
    assert calibration_file.model_key(header) == calibration_file.fnv1a(joined)
    bare = tmp_path / "bare.gguf"
    file = writer.GGUFWriter(bare, "llama")
    file.add_tensor("output_norm.weight", np.ones(4, dtype=np.float32))
    for step in (file.write_header_to_file, file.write_kv_data_to_file, file.write_tensors_to_file, file.close):
        step()
    with pytest.raises(ModelInvalid, match=r"blk\.0\.attn_norm"):
        calibration_file.model_key(gguf.load(str(bare)))


def test_the_hash_is_the_published_one() -> None:
    assert calibration_file.fnv1a(b"") == 0xCBF29CE484222325
    assert calibration_file.fnv1a(b"foobar") == 0x85944171F73967E8


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of the scripted llama-server and turbo-dump."""
    folder = tmp_path / "releases" / "9.9.9-turbo1-abc"
    programs = {"llama-server": "tests.quality.llama_server", "turbo-dump": "tests.validation.attention_program"}
    for name, module in programs.items():
        path = folder / "lib" / "ollama" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join([sys.executable, "-m", module])
        path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
        path.chmod(0o755)
    (folder / "manifest.json").write_text("{}")
    return folder


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-c", "import tasks; tasks.start()", "quality.calibrate"]
    return subprocess.run(
        [*start, *words, "--workspace", str(folder), "--json"], cwd=ROOT, text=True, capture_output=True, check=False
    )


@pytest.mark.slow
def test_ship_calibrates_the_model_that_is_named_once(
    tmp_path: Path, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "probe.gguf"
    write_probe(model, head_size=64, heads=2, kv_heads=1, layers=2, context=700, seed=1)

    def shipped(flags: Mapping[str, str] = {}, types: tuple[CacheType, ...] = own()) -> Run:
        flags = {"verify.model": str(model), "workspace": str(tmp_path), **flags}
        run = Run(config.load(environ={}, flags=flags), Console())
        return calibration.for_service(run, stated(release.name, types), release)

    deploy = shipped().config.deploy
    (file,) = (tmp_path / "calibration").iterdir()
    assert deploy.calibration == str(file.parent)
    assert deploy.server_environment == {CALIBRATION: str(file.parent)}
    made = file.stat().st_mtime_ns
    assert shipped().config.deploy.calibration == str(file.parent)
    assert file.stat().st_mtime_ns == made  # not fitted again
    for flags in ({"verify.model": ""}, {"deploy.calibration": ""}):
        assert shipped(flags).config.deploy.calibration == ""
    assert shipped(types=()).config.deploy.calibration == ""  # a stock release
    file.unlink()
    write_probe(model, head_size=64, heads=2, kv_heads=1, layers=2, context=300, seed=2)
    assert shipped().config.deploy.calibration == ""
    assert "keys are not calibrated: 284 tokens of context: at least 512 are needed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_is_calibrated(tmp_path: Path, release: Path) -> None:
    model, text = tmp_path / "probe.gguf", tmp_path / "text"
    write_probe(model, head_size=64, heads=2, kv_heads=1, layers=2, context=700, seed=1)
    text.write_text("What the model reads. " * 60)
    words = ("--model", str(model), "--text", str(text), "--release", str(release))
    done = ask(tmp_path, *words, "--context", "600")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    key, layers, origin = calibration_file.load(Path(found["file"]))
    assert key == calibration_file.model_key(gguf.load(str(model)))
    assert Path(found["file"]).name == calibration_file.file_name(key) == f"{key:016x}.calibration"
    assert (origin.tokens, origin.lengths) == (1200, (600,))
    assert {number: one.scale.shape for number, one in layers.items()} == {0: (1, 64), 1: (1, 64)}
    text.write_text("short " * 10)
    failed = ask(tmp_path, *words)
    assert (failed.returncode, "tokens, 1024 are needed" in failed.stderr) == (61, True), failed.stderr
