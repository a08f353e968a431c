"""Whether all Metal sources of a tree compile, and whether kernels and host code match."""

from __future__ import annotations

import time
from pathlib import Path

from ..core.errors import KernelInvalid
from ..core.records import record
from .backend import check_kernels
from .layout import kernel_sources
from .names import compare, patterns, types

# Macros that the host defines for the device. Tensors need Apple's headers, which the harness does not model.
VARIANTS: dict[str, dict[str, str]] = {"with bfloat": {"GGML_METAL_HAS_BF16": "1"}, "without bfloat": {}}
NOT_CHECKED = ("GGML_METAL_HAS_TENSOR",)


@record
class Inspection:
    """One tree."""

    tree: Path
    libraries: int
    """number of libraries"""
    kernels: dict[str, int]
    """number of kernels in each variant"""
    flash_attention: int
    """number of flash attention kernels, with bfloat"""
    names: int
    """number of calls of the host code that request a kernel"""
    absent: dict[str, str]
    """names that the host can request but no kernel has; where it builds them"""
    unasked: tuple[str, ...]
    """kernels that the host never requests"""
    twice: dict[str, str]
    """kernels in more than one library, of which the host would use any; their files"""
    not_checked: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether kernels and host code match."""
        return not self.absent and not self.unasked and not self.twice

    def failure(self) -> KernelInvalid | None:
        """The error of a run if kernels and host code do not match."""
        if self.ok:
            return None
        parts = [f"{len(self.absent)} names without a kernel"] * bool(self.absent)
        parts += [f"{len(self.unasked)} kernels without a name"] * bool(self.unasked)
        parts += [f"{len(self.twice)} kernels in two libraries"] * bool(self.twice)
        return KernelInvalid(f"{self.tree}: {' and '.join(parts)}", hint="they are listed above")


def inspect(tree: Path) -> Inspection:
    """Compile every kernel of a llama.cpp tree and compare names.

    Raises `KernelInvalid` for a source that does not compile, `NotModelled` for MSL that the harness lacks,
    `MetalLayoutUnknown` for another layout of kernels, and `UnknownLayout` for a tree without a Metal backend.
    """
    started = time.monotonic()
    known, asked = types(tree), patterns(tree)
    libraries = kernel_sources(tree)
    found = {variant: check_kernels(tree, defines) for variant, defines in VARIANTS.items()}
    kernels = next(iter(found.values()))
    unmatched = compare(asked, kernels, known)
    return Inspection(
        tree=tree,
        libraries=len(libraries),
        kernels={variant: len(names) for variant, names in found.items()},
        flash_attention=sum("flash_attn" in kernel for kernel in kernels),
        names=len(asked),
        absent=unmatched.absent,
        unasked=unmatched.unasked,
        twice={name: " and ".join(path.name for path in files) for name, files in kernels.items() if len(files) > 1},
        not_checked=NOT_CHECKED,
        seconds=round(time.monotonic() - started, 2),
    )
