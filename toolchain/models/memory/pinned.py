"""The dialect of GGUF that a workspace's newest trees speak: what its llama.cpp and its Ollama say themselves.

    ggml/include/ggml.h       GGML_TYPE_Q2_0 = 42,                                        a type's number in files
    ggml/src/ggml.c           [GGML_TYPE_Q2_0] = {.blck_size = QK2_0, .type_size = sizeof(block_q2_0)}
    ggml/src/ggml-common.h    #define QK2_0 64, static_assert(sizeof(block_q2_0) == sizeof(ggml_half) + QK2_0 / 4, ...)

    llama/compat/llama-ollama-compat.cpp
        if (arch_name == "gptoss") handle_gptoss(...);
        void handle_gptoss(...) { gguf_set_val_str(meta, "general.architecture", "gpt-oss"); ... }

What cannot be read is left out: then the built-in dialect holds.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...core import folders
from ...core.config import Config
from ...core.errors import FolderUnusable
from . import architectures
from .dialect import BUILT_IN, Dialect, TensorType

_MAX_BYTES = 4 << 20
_NUMBER = re.compile(r"^\s*GGML_TYPE_(\w+)\s*=\s*(\d+)\s*,", re.MULTILINE)
_TRAITS = re.compile(r"\[GGML_TYPE_(\w+)\]\s*=\s*\{([^{}]*)\}")
_FIELD = re.compile(r"\.(blck_size|type_size)\s*=\s*([^,\n]+)")
_DEFINE = re.compile(r"^#define\s+(\w+)\s+([\w/*+() ]+?)\s*(?://.*)?$", re.MULTILINE)
_SIZE = re.compile(r"static_assert\(sizeof\((\w+)\)\s*==\s*(.+?),\s*\"")
_SIZEOF = re.compile(r"sizeof\(\s*(\w+)\s*\)")
_SCALARS = {
    **{f"{sign}int{8 * size}_t": size for size in (1, 2, 4, 8) for sign in ("", "u")},
    **{"float": 4, "double": 8, "ggml_half": 2, "ggml_fp16_t": 2, "ggml_bf16_t": 2},
}
_DISPATCH = re.compile(r"if\s*\((arch_name\s*==[^{};]*?)\)\s*(handle_\w+)\s*\(")
_QUOTED = re.compile(r"\"([\w.-]+)\"")
_HANDLER = re.compile(r"^(?:static )?void (handle_\w+)\(.*?^}", re.MULTILINE | re.DOTALL)
_BECOMES = re.compile(r"\"general\.architecture\"\s*,\s*\"([\w.-]+)\"")
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def dialect(config: Config, own: Iterable[str]) -> Dialect:
    """Of the newest trees in the workspace; the built-in one without. `own` are the series' types: no file has them."""
    try:
        roots = [path for path in (folders.workspace(config) / "scratch").glob("*/llama.cpp") if path.is_dir()]
        newest = max(roots, key=lambda path: path.stat().st_mtime, default=None)
    except (OSError, FolderUnusable):
        newest = None
    if newest is None:
        return BUILT_IN
    mine = {name.upper() for name in own}
    types = {number: kind for number, kind in tensor_types(newest).items() if kind.name not in mine}
    return Dialect(
        types={**BUILT_IN.types, **types},
        renames=renames(newest.parent / "ollama"),
        source=f"the llama.cpp of {newest.parent.name}",
    )


def tensor_types(llama_cpp: Path) -> dict[int, TensorType]:
    """The types of weights of a llama.cpp tree, by their numbers in files."""
    ggml = llama_cpp / "ggml"
    traits, common = _text(ggml / "src" / "ggml.c"), _text(ggml / "src" / "ggml-common.h")
    numbers = {name: int(number) for name, number in _NUMBER.findall(_text(ggml / "include" / "ggml.h"))}
    sizes = {**{name: str(size) for name, size in _SCALARS.items()}, **dict(_SIZE.findall(common))}
    known = _Constants(defines=dict(_DEFINE.findall(common)), sizes=sizes)
    found = {}
    for name, body in _TRAITS.findall(traits):
        fields = dict(_FIELD.findall(body))
        block, size = (known.value(fields.get(field, "")) for field in ("blck_size", "type_size"))
        if name in numbers and block and size:
            found[numbers[name]] = TensorType(name=name, block=block, bytes=size)
    return found


def renames(ollama: Path) -> dict[str, str]:
    """Architectures of files that the tree's compat layer always makes another one, and llama.cpp has not itself."""
    text = _text(ollama / "llama" / "compat" / "llama-ollama-compat.cpp")
    becomes = {
        match[1]: new[1]
        for match in _HANDLER.finditer(text)
        if (new := _BECOMES.search(match[0])) and not match[1].endswith("_clip")
    }
    return {
        name: becomes[handler]
        for condition, handler in _DISPATCH.findall(text)
        for name in _QUOTED.findall(condition)
        if handler in becomes and name not in architectures.KNOWN
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= _MAX_BYTES else ""
    except OSError:
        return ""


class _Constants:
    """Whole numbers of C, from macros and sizes of structs."""

    def __init__(self, *, defines: Mapping[str, str], sizes: Mapping[str, str]) -> None:
        self._defines, self._sizes = defines, sizes

    def value(self, text: str, depth: int = 8) -> int:
        """0 for what is not understood."""
        try:
            return self._number(text, depth)
        except (ValueError, SyntaxError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
            return 0

    def _number(self, text: str, depth: int) -> int:
        if depth == 0 or len(text) > 200:
            raise ValueError(text)
        text = _SIZEOF.sub(lambda match: str(self._number(self._sizes[match[1]], depth - 1)), text)
        return self._of(ast.parse(text.strip().replace("/", "//"), mode="eval").body, depth)

    def _of(self, node: ast.expr, depth: int) -> int:
        match node:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id=name):
                return self._number(self._defines[name], depth - 1)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self._of(left, depth), self._of(right, depth))
        raise ValueError(ast.dump(node))
