"""A fast search for Metal kernels of TurboQuant types on every branch, by names in the sources; nothing is compiled.

A name does not prove that a kernel is right, or compiles. Its absence proves that such a fork runs on a Mac's CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from ...core.records import record
from ...sources.repository import Repository
from .kept import kept

_PATHS = (":(glob)ggml/src/ggml-metal*", ":(glob)ggml/src/ggml-metal/**", ":(glob)**/*.metal", ":(glob)ggml-metal*")
_SOURCES = re.compile(r"ggml/src/ggml-metal.*|ggml-metal[^/]*|(?:.*/)?[^/]*\.metal")
_WORD = "turbo|polar|tbq"
_NAME = re.compile(rf"\b\w*(?:{_WORD})\w*\b", re.IGNORECASE)
_KERNEL = re.compile(rf"\bkernel_\w*(?:{_WORD})\w*", re.IGNORECASE)
_TYPE = re.compile(rf"\bGGML_TYPE_\w*(?:{_WORD})\w*", re.IGNORECASE)
_FAMILY = re.compile(r"(?:turbo|polar|tbq)\d+", re.IGNORECASE)
_OPERATIONS = {
    "flash attention of prompts": r"flash_attn_ext_(?!vec|pad|blk|reduce)",
    "flash attention of one token": r"flash_attn_ext_vec_",
    "write to the cache": r"set_rows",
    "read rows": r"get_rows",
    "copy": r"cpy",
    "matrix product": r"mul_m",
}

Verdict = Literal["kernels and dispatch", "kernels without dispatch", "dispatch without kernels", "none"]


@record
class MetalBranch:
    """Names in the Metal sources of one branch."""

    branch: str
    verdict: Verdict
    kernels: tuple[str, ...]
    """names of kernels (kernel_...), instances included"""
    functions: int
    """other distinct names in shader sources, such as dequantizers"""
    dispatch: tuple[str, ...]
    """ggml types that host code of the Metal backend names"""
    operations: dict[str, tuple[str, ...]]
    """operations of the kernels of each family (turbo3, turbo4), by their names"""
    gaps: tuple[str, ...]
    """operations that one family has and another lacks: a cache of that type may fail there"""
    files: tuple[str, ...]


class MetalBranches(tuple[MetalBranch, ...]):
    """The Metal sources of many branches."""


@record
class _Searched:
    branches: tuple[MetalBranch, ...]


def sources(repository: Repository, tips: Iterable[str]) -> set[str]:
    """Blobs of all Metal sources, to be fetched before `audit` reads them."""
    found = set()
    for tip in dict.fromkeys(tips):
        listed = repository.git("ls-tree", "-r", "-z", "--full-tree", tip).split("\0")[:-1]
        entries = (entry.split("\t", 1) for entry in listed)
        found |= {meta.split()[2] for meta, path in entries if _SOURCES.fullmatch(path)}
    return found


def audit(repository: Repository, tips: Mapping[str, str], folder: Path | None = None) -> MetalBranches:
    """Search the Metal sources of each tip. The result is cached in `folder`."""
    searched = kept(folder, _Searched, dict(tips), lambda: _Searched(branches=tuple(_search(repository, tips))))
    return MetalBranches(searched.branches)


def _search(repository: Repository, tips: Mapping[str, str]) -> list[MetalBranch]:
    if not tips:
        return []
    asked = dict.fromkeys(tips.values())
    told = repository.git(
        *("grep", "-I", "-i", "-n", "--no-color", "--full-name", "-E", _WORD, *asked, "--", *_PATHS), accept=(0, 1)
    )
    hits: dict[str, list[tuple[str, str]]] = {tip: [] for tip in asked}
    for line in told.splitlines():
        tip, path, _, text = line.split(":", 3)
        hits[tip].append((path, text))
    return [_summed(name, hits[tip]) for name, tip in tips.items()]


def _summed(branch: str, hits: list[tuple[str, str]]) -> MetalBranch:
    shaders = [text for path, text in hits if path.endswith((".metal", ".metal.in"))]
    host = [text for path, text in hits if path.endswith((".m", ".mm", ".c", ".cpp"))]
    kernels = sorted({name for text in shaders for name in _KERNEL.findall(text)})
    dispatch = sorted({name for text in host for name in _TYPE.findall(text)})
    functions = {name for text in shaders for name in _NAME.findall(text)} - set(kernels)
    operations = _operations(kernels)
    known = [one for one in _OPERATIONS if any(one in some for some in operations.values())]
    found: Verdict = "none"
    if kernels:
        found = "kernels and dispatch" if dispatch else "kernels without dispatch"
    elif dispatch:
        found = "dispatch without kernels"
    return MetalBranch(
        branch=branch,
        verdict=found,
        kernels=tuple(kernels),
        functions=len(functions),
        dispatch=tuple(dispatch),
        operations=operations,
        gaps=tuple(f"{family}: no {one}" for family, some in operations.items() for one in known if one not in some),
        files=tuple(sorted({path for path, _ in hits})),
    )


def _operations(kernels: list[str]) -> dict[str, tuple[str, ...]]:
    """Operations of each family. A kernel for all of them, such as a rotation, belongs to none."""
    named: dict[str, list[str]] = {}
    for name in kernels:
        for family in dict.fromkeys(_FAMILY.findall(name.lower())):
            named.setdefault(family, []).append(name)
    return {
        family: tuple(what for what, word in _OPERATIONS.items() if any(re.search(word, name) for name in names))
        for family, names in sorted(named.items())
    }
