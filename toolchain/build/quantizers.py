"""The series' reference quantizers as a shared library, compiled from the same C files as in a release."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.config import Config
from ..core.errors import BuildFailed
from ..core.process import run
from ..core.records import sha256_bytes
from ..series.manifest import Series
from .tools import compilers

# These are plain C without ggml; files of a backend need ggml.
SOURCE = "kernels/ggml-turbo.c"
_FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-DGGML_TURBO_STANDALONE")


def compile_library(series: Series, config: Config, workspace: Path) -> Path:
    """Path of the shared library."""
    cc = compilers(config.build, workspace)[1].require()
    key = sha256_bytes("\n".join([series.sha256, cc.path, cc.version, *_FLAGS]).encode())[:16]
    library = workspace / "quality" / "kernels" / f"libturbo-{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    made = library.with_name(f".{library.name}.{os.getpid()}")
    try:
        argv = [cc.path, *_FLAGS, str(series.root / SOURCE), "-lm", "-o", str(made)]
        run(argv, failure=BuildFailed, what="compiling the kernels")
        made.replace(library)
    finally:
        made.unlink(missing_ok=True)
    return library
