"""Drafts that Ollama loads beside a model: their weights, and the f16 cache that each has or shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolchain.core.cachetypes.grammar import parse
from toolchain.core.config import load as load_config
from toolchain.core.console import Console
from toolchain.core.errors import ModelInvalid
from toolchain.core.run import Run
from toolchain.models.memory import drafts, geometry, gguf, planning
from toolchain.models.memory.kv import Setting, sizes
from toolchain.models.memory.working import PROCESS_BYTES, working_bytes

from . import models
from .stored import LIBRARY, put
from .test_kv import TABLE

SETTING = Setting(context=4096)
CELL = 2 * 2 * 64 * 2
"""bytes of K and V of a layer of `models.dense` for a token, in f16"""


def header(folder: Path, spec: models.Spec) -> gguf.ModelHeader:
    return gguf.load(str(models.write(folder / f"{spec.architecture}.gguf", spec, data=False)))


def cache(draft: drafts.Draft) -> int:
    assert draft.geometry
    return sizes(draft.geometry, parse("f16"), SETTING, TABLE).bytes


@pytest.mark.parametrize("architecture", ["llama", "eagle3", "dflash"])
def test_a_draft_of_its_own_layers(tmp_path: Path, architecture: str) -> None:
    found = header(tmp_path, models.dense(architecture, layers=3))
    draft = drafts.beside(found)
    assert draft.weights == found.tensor_bytes
    assert cache(draft) == 3 * CELL * 4096
    assert draft.geometry
    working = working_bytes(draft.geometry, SETTING, sizes(draft.geometry, parse("f16"), SETTING, TABLE))
    assert draft.bytes_at(SETTING, TABLE) == draft.weights + cache(draft) + working - PROCESS_BYTES


def test_a_draft_that_reads_its_models_cache(tmp_path: Path) -> None:
    found = header(tmp_path, models.dense("gemma4-assistant"))
    assert drafts.beside(found).bytes_at(SETTING, TABLE) == found.tensor_bytes
    assert "the model's own cache" in drafts.beside(found).note


def test_of_a_hybrid_model_only_the_further_layers_draft(tmp_path: Path) -> None:
    found = header(tmp_path, models.qwen35())
    whole, draft = geometry.read(found), drafts.within(found)
    assert draft
    assert draft.weights == 0
    assert draft.geometry
    assert [layer.index for layer in draft.geometry.cached] == [whole.layers - 1]
    assert draft.geometry.recurrent_layers == 0
    one = whole.cached[0]
    assert cache(draft) == 2 * (one.k + one.v) * 4096
    assert drafts.beside(found).weights == found.tensor_bytes  # the same layers in a file of their own
    assert drafts.within(header(tmp_path, models.dense())) is None


def test_a_draft_of_an_unknown_kind_is_said(tmp_path: Path) -> None:
    further: dict[str, Any] = {"hyper_connection.count": 4}
    draft = drafts.beside(header(tmp_path, models.dense("dflash", further=further)))
    assert draft.geometry is None
    assert "not counted: the cache of the draft" in draft.note


def test_the_plan_counts_what_the_store_has_beside_a_model(tmp_path: Path) -> None:
    model, draft = (
        models.write(tmp_path / f"{layers}.gguf", models.dense(layers=layers), data=False).read_bytes()
        for layers in (4, 2)
    )
    put(tmp_path, f"{LIBRARY}/alone/latest", [("model", model)])
    put(tmp_path, f"{LIBRARY}/both/latest", [("model", model), ("draft", draft)])
    put(tmp_path, f"{LIBRARY}/off/latest", [("model", model), ("draft", draft), ("params", b'{"draft_num_predict":0}')])
    run = Run(load_config(environ={}, flags={"deploy.models": str(tmp_path)}), Console())
    plans = [
        planning.plan_for(run, name, context=["4096"], types=["turbo4"], ram=32.0) for name in ("alone", "both", "off")
    ]
    alone, both, off = (plan.types[0].cells[0].total for plan in plans)
    beside = drafts.beside(gguf.load(str(tmp_path / "2.gguf")))
    assert both - alone == beside.bytes_at(SETTING, TABLE) > 2 * CELL * 4096
    assert off == alone
    assert any("the draft, with an f16 cache" in note for note in plans[1].notes)
    assert plans[1].weights == plans[0].weights + beside.weights


def test_files_that_are_no_model_by_themselves(tmp_path: Path) -> None:
    path = models.write(tmp_path / "a.gguf", models.dense(), data=False, extra={"general.type": "adapter"})
    run = Run(load_config(environ={}, flags={"deploy.models": str(tmp_path)}), Console())
    with pytest.raises(ModelInvalid, match="it is an adapter, and no model by itself"):
        planning.plan_for(run, str(path), ram=32.0)
