"""A look through a store: which models a cache type does not suit, by their files' beginnings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.memory import models
from tests.memory.stored import LIBRARY, put, put_model
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import own
from toolchain.models.compatibility import stored
from toolchain.models.compatibility.stored import StoreReport

_WINDOW = {"attention.sliding_window": 128}
_SINKS = [(f"blk.{layer}.attn_sinks.weight", (4,), models.Kind.F32) for layer in range(4)]
_QUANTIZED_FAILS = {"deepseek-v4:flash", "qwen3.8:next"}
_ALL = {"llama3:latest", "heads:80", "heads:96", "gpt-oss:20b", "unheard-of:1b", "qwen2.5:7b", "grok:1", "mla:1"}
_ALL |= _QUANTIZED_FAILS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    put_model(root, "llama3/latest", models.dense())
    put_model(root, "heads/80", models.dense("phi2", head_size=80))
    put_model(root, "heads/96", models.dense("phi3", head_size=96))
    blob = put_model(root, "gpt-oss/20b", models.dense("gptoss", further=_WINDOW))
    put(root, f"{LIBRARY}/gpt-oss/latest", [("model", blob.read_bytes())])
    put(root, f"{LIBRARY}/gpt-oss/mild", [("model", blob.read_bytes()), ("params", b'{"kv_cache_type": "q8_0"}')])
    unknown = models.dense("unheard-of")
    unknown.tensors.extend(_SINKS)
    put_model(root, "unheard-of/1b", unknown)
    put_model(root, "qwen2.5/7b", models.dense("qwen2", head_size=128))
    put_model(root, "grok/1", models.dense("grok", head_size=128))
    put_model(root, "mla/1", models.deepseek2())
    put_model(root, "deepseek-v4/flash", models.dense("deepseek4", further=_WINDOW))
    put_model(root, "qwen3.8/next", models.dense("qwen4exp"))
    put_model(root, "embed/latest", models.dense("nomic-bert"))
    gemma = models.dense("gemma3", head_size=96)
    gemma.tensors.append(("dense.0.weight", (128, 128), models.Kind.F16))
    put_model(root, "embeddinggemma/300m", gemma)
    partial = put_model(root, "partial/latest", models.dense(layers=6))
    partial.write_bytes(partial.read_bytes()[:3000])
    put(root, f"{LIBRARY}/broken/latest", [("model", b"x")]).write_text('{"layers": [')
    put(root, f"{LIBRARY}/other/latest", [("model", b"PK\3\4")])
    put(root, f"{LIBRARY}/of-mlx/latest", [("tensor", b"t")])
    put_model(root, "windows/latest", models.dense("unseen", further=_WINDOW))
    return root


def _found(report: StoreReport) -> dict[tuple[str, ...], tuple[bool, str]]:
    return {one.models: (one.loads, one.instead) for one in report.unsuited}


def test_turbo4(root: Path) -> None:
    report = stored.survey(root, parse("turbo4"), own(), 60)
    failing: dict[tuple[str, ...], tuple[bool, str]] = {(name,): (True, "f16") for name in _QUANTIZED_FAILS}
    assert _found(report) == failing | {
        ("grok:1",): (False, "f16"),
        ("heads:80",): (False, "f16"),
        ("heads:96",): (False, "q8_0"),
        ("gpt-oss:20b", "gpt-oss:latest", "gpt-oss:mild"): (True, "q8_0"),
        ("unheard-of:1b",): (True, "q8_0"),
        ("qwen2.5:7b",): (True, "q8_0:turbo4"),
        ("mla:1",): (True, "q8_0"),
    }
    assert not any(one.loads for one in report.unsuited[:3])  # the worse ones first
    assert report.skipped == ("broken:latest", "other:latest", "partial:latest", "windows:latest")
    assert (report.looked, report.complete) == (12, True)


@pytest.mark.parametrize(
    ("types", "unsuited"),
    [
        ("f16", set()),
        ("q8_0", {"grok:1", "heads:80"} | _QUANTIZED_FAILS),
        ("q8_0:f16", {"heads:80", "mla:1"} | _QUANTIZED_FAILS),
        ("f16,first=9:q8_0", _ALL),
        ("q4_0:f16", _ALL - {"llama3:latest", "grok:1"}),
    ],
)  # fmt: skip
def test_other_types(root: Path, types: str, unsuited: set[str]) -> None:
    report = stored.survey(root, parse(types), own(), 60)
    assert {one.models[0] for one in report.unsuited} == unsuited


def test_a_models_own_type_counts(root: Path) -> None:
    report = stored.survey(root, parse("turbo4"), own(), 60, "kv_cache_type")
    assert ("gpt-oss:20b", "gpt-oss:latest") in _found(report)
    assert not any("gpt-oss:mild" in one.models for one in report.unsuited)


def test_no_more_than_its_time(root: Path) -> None:
    begun = time.monotonic()
    report = stored.survey(root, parse("turbo4"), own(), 0)
    assert time.monotonic() - begun < 5
    assert not report.complete


def test_no_store(tmp_path: Path) -> None:
    report = stored.survey(tmp_path / "none", parse("turbo4"), own(), 60)
    assert (report.unsuited, report.looked, report.skipped, report.complete) == ((), 0, (), True)
