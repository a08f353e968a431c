"""Whether a build for macOS holds the text of the series' Metal kernels, which a GPU's driver compiles at run time."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from ..core.errors import BuildFailed

SOURCE = "ggml/src/ggml-metal/ggml-metal-turbo-source.h"
"""in a patched llama.cpp; a stock one has none"""
_TEXT = re.compile(r'R"TURBO\((.*)\)TURBO"', re.DOTALL)
_KERNEL = re.compile(r"\bkernel\s+void\s+(\w+)\s*\(")
_MOST_NAMED = 5


def require(folder: Path, llama_cpp: Path) -> None:
    """Check that one program or library below `folder` holds the whole text of the kernels of a tree, byte for byte.

    Nothing is required of a tree without the series. Raises `BuildFailed` naming the kernels that are missing, or the
    file whose text is another one.
    """
    source = llama_cpp / SOURCE
    if not source.is_file():
        return
    found = _TEXT.search(source.read_text(encoding="utf-8"))
    names = tuple(dict.fromkeys(_KERNEL.findall(found[1]))) if found else ()
    if not found or not names:
        raise BuildFailed(f"{source}: has no text of Metal kernels", hint="./inv series.check")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    held = {path: [name for name in names if _holds(path, name)] for path in files}
    best = max(held, key=lambda path: len(held[path]), default=None)
    missing = [name for name in names if best is None or name not in held[best]]
    hint = "remove the workspace's build folder, then build again; see the log of the step compile"
    if best is None or missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        where = best if best and held[best] else f"nothing below {folder}"
        raise BuildFailed(f"{where} holds no Metal text of {', '.join(missing[:_MOST_NAMED])}{more}", hint=hint)
    if not any(_holds(path, found[1]) for path in files if len(held[path]) == len(names)):
        raise BuildFailed(f"{best}: the text of the Metal kernels is not that of {source}", hint=hint)


def _holds(path: Path, text: str) -> bool:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(text.encode()) >= 0
