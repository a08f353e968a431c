"""Headers in, records out; every size, offset, value and signature is confirmed by the system's C compiler."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clang import cindex
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.prove import Check, checks, prove
from tests.kernels.conftest import compiler
from toolchain.core.errors import HeaderInvalid, MissingTool
from toolchain.core.records import read, to_json, write
from toolchain.host.libclang import index
from toolchain.upstream.surface.snapshot import take
from toolchain.upstream.surface.surface import PLATFORMS, Snapshot
from toolchain.upstream.surface.trees import FolderTree

from .conftest import GGML, LLAMA, tree

_MACHINES = {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64", "arm64": "macos-arm64"}
HERE = "macos-arm64" if sys.platform == "darwin" else _MACHINES[platform.machine()]

Make = Callable[..., FolderTree]


def test_the_compiler_confirms_everything(folder: Make) -> None:
    made = folder()
    count, failed = prove(made, take(made, HERE), compiler())
    assert failed == []
    assert count > 80


def test_a_wrong_snapshot_is_caught(folder: Make) -> None:
    """The proof can fail: each thing that a snapshot states is made wrong once."""
    made = folder()
    good = take(made, HERE)
    node = next(one for one in good.structs if one.name == "ggml_node")
    level = next(one for one in node.fields if one.name == "level")
    moved = tuple(replace(one, offset=one.offset + 8) if one.name == "words.high" else one for one in node.fields)
    wider = tuple(replace(one, bits=6) if one is level else one for one in node.fields)
    kinds = next(one for one in good.enums if one.name == "ggml_type")
    values = (replace(kinds.values[0], value=3), *kinds.values[1:])
    limit = next(one for one in good.macros if one.name == "GGML_LIMIT")
    declared = tuple(replace(one, type="void (int)") if one.name == "ggml_new" else one for one in good.declared)
    for wrong, said in (
        (replace(good, structs=(replace(node, fields=moved),)), "offset struct ggml_node.words.high"),
        (replace(good, structs=(replace(node, fields=wider),)), "bit-field struct ggml_node.level"),
        (replace(good, structs=(replace(node, size=node.size + 8),)), "size struct ggml_node"),
        (replace(good, enums=(replace(kinds, values=values),)), "value GGML_TYPE_F32"),
        (replace(good, macros=(replace(limit, value=64),)), "macro GGML_LIMIT"),
        (replace(good, declared=declared), "function ggml_new"),
    ):
        failed = prove(made, wrong, compiler())[1]
        assert [line.partition(":")[0] for line in failed] == [said]


def test_what_a_snapshot_holds(surface: Callable[..., Snapshot]) -> None:
    found = surface()
    assert found.headers == ("ggml/include/ggml.h", "include/llama.h")
    declared = {one.name: one for one in found.declared}
    assert declared["llama_first"].type == "int (const struct llama_params *)"
    assert declared["ggml_version"].kind == "variable"
    assert declared["ggml_log"].type == "void (*)(enum ggml_type, const char *, void *)"
    assert [one.name for one in found.declared if one.deprecated] == ["ggml_count"]
    assert "ggml_twice" not in declared, "an inline function is no symbol"
    assert {one.name: one.value for one in found.macros} == {
        "GGML_MAX_DIMS": 4,
        "GGML_LIMIT": 63,
        "GGML_BIG": 0xFFFFFFFF00000000,
        "GGML_SCALE": 0.5,
        "GGML_NAME": "tile",
    }
    assert {one.name: len(one.values) for one in found.enums} == {"ggml_type": 4, "GGML_FLAG_IN": 3, "ggml_shape": 2}
    hidden = next(one for one in found.structs if one.name == "ggml_hidden")
    assert (hidden.complete, hidden.size) == (False, 0)
    names = [field.name for one in found.structs if one.name == "ggml_node" for field in one.fields]
    assert names == [
        *("type", "ne", "from", "ready", "level", "deep", "real", "words.low", "words.high"),
        *("named.tag", "named.block.radius", "named.block.codes", "caps.fast", "caps.wide", "blocks", "log", "rest"),
    ]


def test_the_platform_counts(surface: Callable[..., Snapshot]) -> None:
    sizes = {
        name: next(one.size for one in surface(platform=name).structs if one.name == "ggml_any") for name in PLATFORMS
    }
    assert sizes == {"macos-arm64": 8, "linux-x86_64": 16, "linux-aarch64": 16}, "long double differs"


def test_snapshots_are_stable_and_sorted(surface: Callable[..., Snapshot], tmp_path: Path) -> None:
    one, other = surface(), surface()
    assert to_json(replace(one, origin="", describe="")) == to_json(replace(other, origin="", describe=""))
    for names in (one.enums, one.structs, one.macros):
        assert [found.name for found in names] == sorted(found.name for found in names)
    write(tmp_path / "snapshot.json", one)
    assert read(tmp_path / "snapshot.json", Snapshot) == one


_SCALARS = ("char", "short", "int", "long", "long long", "float", "double", "void *", "bool", "enum ggml_type")
_FIELDS = st.one_of(
    st.tuples(st.just("plain"), st.sampled_from(_SCALARS), st.just(0)),
    st.tuples(st.just("array"), st.sampled_from(_SCALARS), st.integers(1, 5)),
    st.tuples(st.just("bits"), st.sampled_from(("unsigned", "int", "unsigned long long")), st.integers(1, 31)),
    st.tuples(st.sampled_from(("struct", "union")), st.sampled_from(_SCALARS), st.integers(1, 3)),
)
_STRUCTS = st.lists(
    st.tuples(st.sampled_from(("struct", "union")), st.lists(_FIELDS, min_size=1, max_size=6)), max_size=30
)


def _written(number: int, kind: str, fields: list[tuple[str, str, int]]) -> str:
    lines = []
    for place, (shape, scalar, count) in enumerate(fields):
        if shape == "plain":
            lines.append(f"{scalar} f{place};")
        elif shape == "array":
            lines.append(f"{scalar} f{place}[{count}];")
        elif shape == "bits":
            lines.append(f"{scalar} f{place} : {count};")
        else:
            lines.append(f"{shape} {{ {scalar} a[{count}]; char b; }} f{place};")
    return f"{kind} ggml_drawn{number} {{ {' '.join(lines)} }};\n"


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(_STRUCTS)
def test_any_layout(drawn: list[tuple[str, list[tuple[str, str, int]]]]) -> None:
    text = GGML + "".join(_written(number, kind, fields) for number, (kind, fields) in enumerate(drawn))
    with tempfile.TemporaryDirectory() as root:
        made = tree({"ggml/include/ggml.h": text, "include/llama.h": LLAMA}, Path(root))
        snapshot = take(made, HERE)
        assert sum(one.name.startswith("ggml_drawn") for one in snapshot.structs) == len(drawn)
        assert prove(made, snapshot, compiler())[1] == []


def test_a_constant_that_no_compiler_agrees_with_does_not_compile(folder: Make) -> None:
    """The form of the proof for platforms that cannot run here fails as well."""
    made = folder()
    good = take(made, HERE)
    size = next(one for one in good.structs if one.name == "ggml_caps")
    assert Check("size", "struct ggml_caps", "sizeof(struct ggml_caps)", 2) in checks(good)
    wrong = replace(good, structs=(replace(size, size=3),))
    with pytest.raises(subprocess.CalledProcessError):
        prove(made, wrong, ["false"])


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        (("int64_t ne[GGML_MAX_DIMS];", "int64_t ne[GGML_MAX_DIMS]"), r"ggml/include/ggml\.h:\d+: expected ';'"),
        (("#include <stdint.h>", "#include <quantum.h>"), r"ggml/include/ggml\.h:5: 'quantum\.h' file not found"),
        (('#include "ggml.h"', '#include "ggml-gone.h"'), r"include/llama\.h:3: 'ggml-gone\.h' file not found"),
        (("typedef int32_t llama_token;", "typedef nowhere_t llama_token;"), r"include/llama\.h:4: unknown type name"),
        (("struct ggml_caps {", "struct ggml_caps { class unknown x;"), r"ggml/include/ggml\.h:\d+: unknown type name"),
    ],
)
def test_headers_that_do_not_parse(folder: Make, replaced: tuple[str, str], said: str) -> None:
    """A missing header, too: libclang by itself goes on and states wrong layouts."""
    with pytest.raises(HeaderInvalid, match=said):
        take(folder(replaced))


def test_not_a_tree_of_llama_cpp(tmp_path: Path) -> None:
    with pytest.raises(HeaderInvalid, match=r"not a tree of llama\.cpp"):
        take(FolderTree(tmp_path))
    tree({"include/llama.h": LLAMA}, tmp_path)
    with pytest.raises(HeaderInvalid, match=r"no ggml/include/ggml\.h beside include/llama\.h"):
        take(FolderTree(tmp_path))


def test_the_layout_of_the_vendored_era(tmp_path: Path) -> None:
    files = {
        "llama/llama.cpp/include/llama.h": LLAMA,
        "ml/backend/ggml/ggml/include/ggml.h": GGML,
        "ml/backend/ggml/ggml/include/ggml-cpp.h": "#include <memory>\n",
        "ml/backend/ggml/ggml/include/deeper/ggml-own.h": "#error never read\n",
        "llama/llama.cpp/tools/mtmd/mtmd.h": "#include <llama.h>\nextern int mtmd_count(void);\n",
    }
    found = take(tree(files, tmp_path))
    assert len(found.headers) == 3
    assert "mtmd_count" in {one.name for one in found.declared}


def test_without_libclang(monkeypatch: pytest.MonkeyPatch, folder: Make) -> None:
    def missing() -> None:
        raise cindex.LibclangError("libclang.so: cannot open shared object file")

    index.cache_clear()
    monkeypatch.setattr(cindex.Index, "create", missing)
    with pytest.raises(MissingTool, match="libclang cannot be loaded"):
        take(folder())
    monkeypatch.undo()
    index.cache_clear()
    assert take(folder()).declared
