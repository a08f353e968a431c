"""Compiles and runs Metal kernels without a Mac; docs/explanation/metal-harness.md says what is modelled.

`compile(path, kernels=[...])` gives a `Library`; `Library.run(kernel, buffers, grid=..., threads=...)` a `Report`.
"""

from .compiler import check, compile
from .findings import Finding, Report
from .library import Library

__all__ = ["Finding", "Library", "Report", "check", "compile"]
