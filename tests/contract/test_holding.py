"""A tree that lacks what our sources use is named by the dry run, before anything is built."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain import pipeline
from toolchain.contract import holding
from toolchain.contract.check import Checked
from toolchain.core.errors import ContractBroken
from toolchain.rehearsal.miniature import Miniature
from toolchain.series.symbols import ABSENT, Form, Symbol
from toolchain.text import as_text

from .conftest import Edits

pytestmark = pytest.mark.slow

Change = Callable[[Edits], str]
Check = Callable[[], Checked]

BACKEND = "ggml/include/ggml-backend.h"
GGML = "ggml/include/ggml.h"
IMPL = "ggml/src/ggml-cpu/ggml-cpu-impl.h"


def test_the_miniature_holds(check: Check) -> None:
    checked = check()
    assert checked.ok
    assert checked.contract == ()
    assert checked.symbols > 150
    assert f"{checked.symbols} symbols of llama.cpp unchanged" in as_text(checked)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (
            {BACKEND: ("dev_name(ggml_backend_dev_t device)", "dev_name(ggml_backend_dev_t d, int n)")},
            "function ggml_backend_dev_name: takes 2 parameters, not 1: const char * (ggml_backend_dev_t, int)"
            f" ({BACKEND}:",
        ),
        (
            {BACKEND: ("const void * data, size_t offset", "const char * data, size_t offset")},
            "function ggml_backend_tensor_set: parameter 2 is const char *, not const void *",
        ),
        (
            {GGML: ("GGML_API size_t                          ggml_row_size(", "GGML_API int ggml_row_size(")},
            "function ggml_row_size: returns int, not size_t",
        ),
        ({IMPL: ("use_ref;", "reference;")}, f"field ggml_compute_params::use_ref: is gone ({IMPL})"),
        (
            {GGML: ("    size_t               nb[GGML_MAX_DIMS];", "    int32_t nb[GGML_MAX_DIMS];")},
            "field ggml_tensor::nb: is int32_t [GGML_MAX_DIMS], not size_t [GGML_MAX_DIMS]",
        ),
        ({GGML: ("#define GGML_MAX_SRC 5", "enum { GGML_MAX_SRC = 5 };")}, "macro GGML_MAX_SRC: is gone"),
        (
            {GGML: ("#define GGML_ASSERT(condition)", "#define GGML_ASSERT(condition, why)")},
            "macro GGML_ASSERT: is of 2 arguments, not of 1",
        ),
        ({GGML: ("    GGML_OP_DUP,\n", "")}, f"enum value GGML_OP_DUP: is gone ({GGML})"),
        (
            {"src/llama-kv-cache.cpp": ("v_trans", "transposed")},
            "variable llama_kv_cache::llama_kv_cache()::v_trans: is gone (src/llama-kv-cache.cpp)",
        ),
        (
            {"src/llama-hparams.h": ("bool has_kv(uint32_t il) const {", "bool attends_at(uint32_t il) const {")},
            "function llama_hparams::has_kv: is gone (src/llama-hparams.h)",
        ),
    ],
)  # fmt: skip
def test_what_changed_is_named(edits: Edits, said: str, change: Change, check: Check) -> None:
    culprit = change(edits)
    checked = check()
    assert not checked.ok
    text = as_text(checked)
    assert said in text
    assert f"broken by: {culprit[:12]}" in text


def test_a_function_that_became_static(change: Change, check: Check) -> None:
    cpu = "ggml/src/ggml-cpu/ggml-cpu.c"
    change({
        IMPL: ("void ggml_barrier(struct ggml_threadpool * pool);", ""),
        cpu: ("void ggml_barrier(", "static void ggml_barrier("),
    })  # fmt: skip
    (breach,) = check().contract
    assert (breach.name, breach.reason) == ("ggml_barrier", "became static")
    assert breach.where.startswith(f"{cpu}:")
    assert breach.used == ("ggml/src/ggml-cpu/ggml-cpu-turbo-fa-op.cpp",)


def test_a_header_that_ours_include_may_take_a_symbol_over(change: Change, check: Check) -> None:
    prototype = "void ggml_barrier(struct ggml_threadpool * pool);"
    change({
        IMPL: (prototype, '#include "threads.h"'),
        "ggml/src/ggml-cpu/threads.h": ("", f"#pragma once\nstruct ggml_threadpool;\n{prototype}\n"),
    })  # fmt: skip
    assert check().ok


def test_a_header_that_nobody_includes_may_not(change: Change, check: Check) -> None:
    prototype = "void ggml_barrier(struct ggml_threadpool * pool);"
    change({IMPL: (prototype, ""), "ggml/src/ggml-cpu/threads.h": ("", f"struct ggml_threadpool;\n{prototype}\n")})
    (breach,) = check().contract
    assert breach.reason == f"moved from {IMPL} to a file that our sources do not include"
    assert breach.where == "ggml/src/ggml-cpu/threads.h:2"


def test_what_says_the_same_in_other_words_holds(change: Change, check: Check) -> None:
    change({
        BACKEND: (
            "ggml_backend_tensor_set(struct ggml_tensor * tensor, const void * data, size_t offset, size_t size);",
            "\n    ggml_backend_tensor_set(ggml_tensor* to,const void*from , size_t, size_t /* bytes */ bytes);",
        ),
        "src/llama-hparams.h": ("head_k(uint32_t = 0) const", "head_k(uint32_t il = 7, bool full = true) const"),
    })  # fmt: skip
    assert check().ok


def test_exit_code_and_json(tmp_path: Path, upstream: Miniature, change: Change, check: Check) -> None:
    change({IMPL: ("use_ref;", "reference;")})
    with pytest.raises(ContractBroken, match=r"1 of \d+ symbols that our sources use have changed: field"):
        pipeline.require(check())
    done = subprocess.run(
        [sys.executable, "-c", "import tasks; tasks.start()", "series.check", "--json",
         "--workspace", str(tmp_path / "workspace"), "--ollama", str(upstream.ollama),
         "--llama-cpp", str(upstream.llama_cpp), "--llama-cpp-ref", "HEAD"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ContractBroken.exit_code
    assert '"kind": "field"' in done.stdout


def test_what_only_another_era_uses_is_not_asked() -> None:
    forms = (Form(form="int", file="a.h"), Form(form=ABSENT, file="vendored"))
    only = Symbol(kind="field", name="a::b", forms=forms)
    local = Symbol(kind="local", name="f()::b", forms=(Form(form="int", file="a.c"),))
    words = {"b": ["a.c"]}
    assert holding.asked([only, local], words, "pinned") == [only, local]
    assert holding.asked([only, local], words, "vendored") == [local]
    assert holding.asked([only, local], {"b": ["b.c"]}, "pinned") == [only]
    breach = holding.held(only, lambda _: None)
    assert breach is not None
    assert (breach.reason, breach.where) == ("is gone", "a.h")
