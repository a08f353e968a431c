"""Whether the Metal sources of a tree compile as a whole, and whether their kernels and the host code fit together."""

from __future__ import annotations

import time
from pathlib import Path

from ..core.errors import KernelInvalid
from ..core.records import record
from .backend import check_kernels
from .layout import kernel_sources
from .names import compare, patterns, types

# What the host defines by the device that it finds. Tensors need headers of Apple's that the harness does not model.
VARIANTS: dict[str, dict[str, str]] = {"with bfloat": {"GGML_METAL_HAS_BF16": "1"}, "without bfloat": {}}
NOT_CHECKED = ("GGML_METAL_HAS_TENSOR",)


@record
class Inspection:
    """One tree."""

    tree: Path
    libraries: int
    """how many the kernels are divided over"""
    kernels: dict[str, int]
    """how many kernels each variant has"""
    flash_attention: int
    """how many of them, with bfloat, are flash attention's"""
    names: int
    """calls of the host code that ask for a kernel"""
    absent: dict[str, str]
    """names that the host can ask for and no kernel has; where it builds them"""
    unasked: tuple[str, ...]
    """kernels that the host cannot ask for"""
    twice: dict[str, str]
    """kernels that more than one library has, of which the host would take any; the files"""
    not_checked: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether kernels and host fit together."""
        return not self.absent and not self.unasked and not self.twice

    def failure(self) -> KernelInvalid | None:
        """What a run ends with whose kernels and host code do not fit together."""
        if self.ok:
            return None
        parts = [f"{len(self.absent)} names without a kernel"] * bool(self.absent)
        parts += [f"{len(self.unasked)} kernels without a name"] * bool(self.unasked)
        parts += [f"{len(self.twice)} kernels in two libraries"] * bool(self.twice)
        return KernelInvalid(f"{self.tree}: {' and '.join(parts)}", hint="they are listed above")


def inspect(tree: Path) -> Inspection:
    """Compile every kernel of a llama.cpp tree and compare names.

    Raises `KernelInvalid` for a source that does not compile, `NotModelled` for MSL that the harness lacks,
    `MetalLayoutUnknown` for kernels that lie in another way, and `UnknownLayout` for a tree without a Metal backend.
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
