"""Where the Metal kernels of a llama.cpp tree are, and of which files its build makes libraries.

Until August 2026 all are in one file. Since then each file of `kernels/` is a library, listed by CMake and by the
host code. What is embedded is that file, after the shared files that it includes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import MetalLayoutUnknown
from ..core.records import record
from .embedding import Recipe, embed, recipe

FOLDER = Path("ggml/src/ggml-metal")
WHOLE = FOLDER / "ggml-metal.metal"
KERNELS = FOLDER / "kernels"
HOST, BUILD = FOLDER / "ggml-metal-device.m", FOLDER / "CMakeLists.txt"


@record
class KernelSource:
    """The source of one library, which a device compiles as a unit."""

    path: Path
    include: tuple[Path, ...]
    """include folders besides the file's own"""
    text: str = ""
    """the text that CMake embeds, with line markers of the original files; empty: the file itself"""
    macros: tuple[str, ...] = ()
    """macros of the build, besides those that the host defines for the device"""

    @property
    def defines(self) -> dict[str, str]:
        return dict.fromkeys(self.macros, "1")


def kernel_sources(tree: Path) -> tuple[KernelSource, ...]:
    """The sources of a tree's libraries, in the order of its build.

    Raises `MetalLayoutUnknown` for a tree with both layouts or neither, and for one whose lists do not match its files.
    """
    whole, files = tree / WHOLE, sorted((tree / KERNELS).glob("*.metal"))
    if whole.is_file() and files:
        raise MetalLayoutUnknown(
            f"{tree}: {WHOLE} as well as {len(files)} files in {KERNELS}: {_some([path.name for path in files])}",
            hint=f"remove what {BUILD} does not build: a merge may have left it behind",
        )
    if whole.is_file():
        return (KernelSource(path=whole, include=(tree / "ggml/src",)),)
    if not files:
        has = _some(sorted(path.name for path in (tree / FOLDER).glob("*.metal"))) or "no .metal file at all"
        raise MetalLayoutUnknown(
            f"{tree}: neither {WHOLE} nor files in {KERNELS}; {FOLDER} has {has}",
            hint="name the root of a llama.cpp tree with a Metal backend; add a newer layout to"
            " toolchain/metal/layout.py",
        )
    return _split(tree, files)


def _split(tree: Path, files: Sequence[Path]) -> tuple[KernelSource, ...]:
    build, host = _read(tree, BUILD), _read(tree, HOST)
    found = recipe(build, host)
    if wrong := [*_differences(found, files)]:
        raise MetalLayoutUnknown(
            f"{tree}: the kernel files and the lists of them differ:" + "".join(f"\n  {line}" for line in wrong),
            hint=f"a library must be in {BUILD.name} (METALLIB_KERNEL_SOURCES), in {HOST.name} (GGML_METAL_LIBS) and"
            f" as a file in {KERNELS}",
        )
    folders = (tree / FOLDER, tree / "ggml/src")
    paths = [tree / FOLDER / listed for listed in found.listed]
    if not found.steps:
        return tuple(KernelSource(path=path, include=folders) for path in paths)
    return tuple(
        KernelSource(
            path=path, include=(), text=embed(tree / FOLDER, path, found), macros=("GGML_METAL_EMBED_LIBRARY",)
        )
        for path in paths
    )


def _differences(found: Recipe, files: Sequence[Path]) -> list[str]:
    """Listed files that are missing, files that are not listed, and differences between the lists."""
    listed, there = set(found.listed), {f"kernels/{path.name}" for path in files}
    stems = {name.removeprefix("kernels/").removesuffix(".metal"): name for name in listed}
    wrong = [f"{BUILD.name} lists {name}, which is missing" for name in found.listed if name not in there]
    wrong += [f"{name} exists, but {BUILD.name} neither lists it nor embeds it with others"
              for name in sorted(there - listed - set(found.shared))]  # fmt: skip
    wrong += [f"{HOST.name} has a library {name}, which {BUILD.name} does not list"
              for name in found.asked if name not in stems]  # fmt: skip
    wrong += [f"{BUILD.name} lists {name}, but {HOST.name} has no library of that name"
              for stem, name in sorted(stems.items()) if stem not in found.asked]  # fmt: skip
    for where, names in ((BUILD.name, found.listed), (HOST.name, found.asked)):
        wrong += [f"{where} lists {name} {times} times" for name, times in Counter(names).items() if times > 1]
    return wrong


def _read(tree: Path, file: Path) -> str:
    path = tree / file
    if not path.is_file():
        raise MetalLayoutUnknown(
            f"{tree}: files in {KERNELS}, but no {file}", hint="name the root of a llama.cpp tree with a Metal backend"
        )
    return path.read_text(encoding="utf-8")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
