"""What no signature shows: kernels chosen by the type of K alone, another order of parameters, less work memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from toolchain import pipeline
from toolchain.contract import behaviour, operations
from toolchain.contract.check import Checked
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import BehaviourChanged
from toolchain.core.run import Run
from toolchain.metal.host import Kind, RecordedOperation
from toolchain.text import as_text
from toolchain.text.contract import behaviour_lines

from .conftest import Edits

pytestmark = pytest.mark.slow

Change = Callable[[Edits], str]

OPS = "ggml/src/ggml-metal/ggml-metal-ops.cpp"
BACKEND = "ggml/src/ggml-backend.cpp"
CASE = "case GGML_OP_FLASH_ATTN_EXT:"
# from 32 queries on, K and V are decoded beforehand, by one kernel for both
BY_K_ALONE = f"""{CASE} {{
            const ggml_tensor * op = ctx->node(idx);
            if (op->src[0]->ne[1] >= 32 && op->src[1]->type == GGML_TYPE_Q8_0) {{
                ggml_metal_encoder_set_pipeline(ctx->enc, ggml_metal_library_compile_pipeline(
                    ctx->lib, "kernel_kv_q8_0_f16", "kernel_kv_q8_0_f16", nullptr));
                ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op->src[1]), 0);
                ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op->src[2]), 1);
                ggml_metal_encoder_dispatch_threadgroups(ctx->enc, 1, 1, 1, 32, 1, 1);
            }}
        }}"""


@pytest.fixture
def check(run: Run) -> Callable[[], Checked]:
    return lambda: pipeline.check_series(run, pipeline.prepare(run))


def test_the_miniature_behaves_and_the_answer_is_kept(check: Callable[[], Checked]) -> None:
    first = check()
    assert first.behaviour
    assert first.behaviour.wrong == ()
    assert first.behaviour.operations > 300
    assert first.behaviour.seconds > 0
    assert "operations on our types go to our kernels" in as_text(first)
    again = check()
    assert again.behaviour
    assert again.behaviour.seconds == 0.0


def test_a_kernel_that_is_chosen_by_the_type_of_k_alone(change: Change, check: Callable[[], Checked]) -> None:
    change({OPS: (CASE, BY_K_ALONE)})
    checked = check()
    assert all(edit.status == "applies" for edit in checked.edits)
    assert checked.contract == ()
    assert not checked.ok
    assert checked.behaviour
    assert [line.split(": ")[0] for line in checked.behaviour.wrong] == [
        f"FLASH_ATTN_EXT q8_0:{name} of 32, 33, 512 queries, head size 64, 128, 256, 576/512"
        for name in ("turbo4", "turbo3", "turbo2", "turbo5")
    ]
    assert checked.behaviour.wrong[0].endswith(
        "upstream's kernel_kv_q8_0_f16 gets V (turbo4), which it cannot decode: the choice depends on the type of K"
        " only"
    )
    with pytest.raises(BehaviourChanged, match="on the type of K only"):
        pipeline.require(checked)


def test_another_order_of_parameters(change: Change, check: Callable[[], Checked]) -> None:
    change({BACKEND: ("{ scale, max_bias, logit_softcap }", "{ max_bias, scale, logit_softcap }")})
    checked = check()
    assert checked.contract == (), "no signature has changed"
    assert checked.behaviour
    assert checked.behaviour.wrong == (
        "FLASH_ATTN_EXT: scale is parameter 1, but our code reads it as parameter 0",
        "FLASH_ATTN_EXT: max_bias is parameter 0, but our code reads it as parameter 1",
    )


def test_other_operands_and_dimensions(change: Change, check: Callable[[], Checked]) -> None:
    change({BACKEND: ("by(to, GGML_OP_SET_ROWS, from, numbers)", "by(to, GGML_OP_SET_ROWS, numbers, from)")})
    checked = check()
    assert checked.behaviour
    assert "SET_ROWS: source is operand 1, but our code reads it as operand 0" in checked.behaviour.wrong


@pytest.mark.parametrize(("reserved", "wrong"), [(0, True), (4096, False)])
def test_work_memory_that_is_not_reserved(reserved: int, wrong: bool) -> None:
    kinds = {"f32": Kind("f32", 1, 4), "f16": Kind("f16", 1, 2), "new4": Kind("new4", 64, 34)}
    posed = operations.attention(kinds, "new4", "new4", (64, 64), 1)
    size = 4 * 64 * operations.HEADS
    dispatch = {
        "kernel": "kernel_new", "library": "ours", "constants": {}, "bytes": {}, "memory": 0, "groups": [1, 1, 1],
        "threads": [32, 1, 1], "buffers": {"0": [0, size]},
    }  # fmt: skip
    recorded = msgspec.convert({"claimed": True, "extra": reserved, "dispatches": [dispatch]}, RecordedOperation)
    found = [one.text for one in behaviour.memory_findings(posed, recorded)]
    said = f"kernel_new works at byte {size} of the result, for which {size} bytes are reserved"
    assert found == ([said] if wrong else [])


def test_nothing_is_compiled_without_a_compiler_or_a_wish(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pipeline.prepare(run)
    assert pipeline.check_series(run, found, behaviour=False).behaviour is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    settings = dict.fromkeys(("sources.ollama", "sources.llama_cpp"), "")
    settings |= {"sources.ollama": run.config.sources.ollama, "sources.llama_cpp": run.config.sources.llama_cpp}
    settings |= {"workspace": str(tmp_path / "other"), "build.compiler": "system"}
    other = Run(config=load(file=tmp_path / "turboquant.yaml", environ={}, flags=settings), console=Console(json=True))
    checked = pipeline.check_series(other, found)
    assert checked.ok
    assert checked.behaviour
    assert checked.behaviour.skipped.startswith("no C++ compiler")
    assert any("behaviour not checked: no C++ compiler" in line for line in behaviour_lines(checked.behaviour))
