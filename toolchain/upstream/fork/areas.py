"""Which area of llama.cpp a path belongs to, for reports."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...core.records import record

KV, METAL = "core KV cache", "Metal"
TURBO = "TurboQuant only"
STOP = (KV, METAL)
"""areas in which a conflict closes the path: mistakes there produce garbage, not a failed build"""

DATA = ("docs", "tests", "vocabularies")
"""areas whose files a build of the programs does not read"""

_AREAS = (
    ("vocabularies", r"models/"),
    ("docs", r"docs/|media/|[^/]*\.md$|.*\.md$|licenses/|LICENSE"),
    ("tests", r"tests/"),
    (TURBO, r".*(turbo|polar_?quant|tbq)[^/]*$"),
    (KV, r"src/llama-(kv-|memory|context|graph|cparams)"),
    (METAL, r"ggml/src/ggml-metal|ggml/include/ggml-metal|.*\.metal$"),
    ("CUDA", r"ggml/src/ggml-(cuda|hip|musa)|ggml/include/ggml-cuda"),
    ("CPU", r"ggml/src/ggml-cpu|ggml/include/ggml-cpu"),
    ("other backends", r"ggml/(src|include)/ggml-(?!alloc|backend|quants|common|impl|threading|opt|cpp)[a-z0-9]+[-/.]"),
    ("ggml core", r"ggml/"),
    ("llama", r"src/|include/"),
    ("tools", r"tools/|common/|examples/|app/|pocs/"),
    ("conversion", r"gguf-py/|conversion/|convert.*\.py|requirements"),
    ("build and CI", r""),
)
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _AREAS)
AREAS = tuple(name for name, _ in _AREAS)


@record
class AreaChange:
    """Files and lines that differ within one area."""

    area: str
    files: int
    inserted: int
    deleted: int


def area_of(path: str) -> str:
    """The area of a path; the last one is for all other paths."""
    return next(name for name, pattern in _PATTERNS if pattern.match(path))


def by_area(changes: Iterable[tuple[str, int, int]]) -> tuple[AreaChange, ...]:
    """Sums over (path, inserted, deleted), in the order of `AREAS`; areas without a change are left out."""
    sums: dict[str, list[int]] = {}
    for path, inserted, deleted in changes:
        row = sums.setdefault(area_of(path), [0, 0, 0])
        row[0] += 1
        row[1] += inserted
        row[2] += deleted
    return tuple(
        AreaChange(area=area, files=sums[area][0], inserted=sums[area][1], deleted=sums[area][2])
        for area in AREAS
        if area in sums
    )
