"""What our sources use, told by libclang, merged over trees, and written so that it can be read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from toolchain.contract import recording
from toolchain.core.errors import SeriesError
from toolchain.core.run import Run
from toolchain.rehearsal.miniature import Miniature
from toolchain.series import manifest, symbols
from toolchain.series.symbols import Form, Symbol

from .conftest import Edits

pytestmark = pytest.mark.slow


def test_recorded_on_two_trees(tmp_path: Path, run: Run, upstream: Miniature, change: Callable[[Edits], str]) -> None:
    own = tmp_path / "series"
    copytree(manifest.OWN_SERIES, own)
    (own / symbols.NAME).unlink()
    manifest.seal(own)
    before = manifest.load(own)
    assert before.contract == ()

    made_by_build = ("#include <set>", '#include "made-by-the-build.h"\n#include <set>')
    device = ("ggml_backend_dev_get(size_t number)", "ggml_backend_dev_get(int number)")
    change({"ggml/include/ggml-backend.h": device, "tools/server/server-http.cpp": made_by_build})
    recorded = recording.record_contract(run, before, ["b9000", "HEAD"])
    made = manifest.load(own)
    assert recorded.symbols == len(made.contract) > 150
    by_name = {symbol.name: symbol for symbol in made.contract}
    assert by_name["ggml_backend_dev_get"].forms == (
        Form(form="ggml_backend_dev_t (int)", file="ggml/include/ggml-backend.h"),
        Form(form="ggml_backend_dev_t (size_t)", file="ggml/include/ggml-backend.h"),
    )
    assert by_name["ggml_metal_device_supports_op()::op"].forms[0].file.endswith("ggml-metal-device.m")
    assert by_name["llama_kv_cache::kv_layer::k"].kind == "field"
    assert by_name["is_public()::req"].forms[0].file == "tools/server/server-http.cpp"
    assert by_name["GGML_MAX_SRC"].kind == "macro"
    assert not [name for name in by_name if "turbo" in name], "what is ours is no part of it"
    assert symbols.parse((own / symbols.NAME).read_text(), "") == made.contract
    assert recording.summary(made.contract, made.contract[1:], []).gone == (
        f"{made.contract[0].kind} {made.contract[0].name}",
    )


def test_what_does_not_compile_is_not_recorded(tmp_path: Path, run: Run, change: Callable[[Edits], str]) -> None:
    change({"ggml/src/ggml-cpu/ggml-cpu-impl.h": ("use_ref;", "reference;")})
    own = tmp_path / "series"
    copytree(manifest.OWN_SERIES, own)
    with pytest.raises(SeriesError, match=r"ggml-cpu-turbo-fa-op\.cpp:\d+: our sources do not compile.*use_ref"):
        recording.record_contract(run, manifest.load(own), ["HEAD"])


def test_a_malformed_line() -> None:
    with pytest.raises(SeriesError, match=r"contract\.txt:2: malformed"):
        symbols.parse("# head\nfunction f | void ()\n", "contract.txt")


def test_there_and_back() -> None:
    forms = (Form(form="a<b> (c || d)", file="x.h"), Form(form="absent", file="-"))
    made = (Symbol(kind="function", name="x::f", forms=forms[1:]), Symbol(kind="local", name="f()::y", forms=forms))
    text = symbols.text(made[:1])
    assert symbols.parse(text, "") == made[:1]
