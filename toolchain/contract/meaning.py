"""Whether upstream's operations still have the numbering that our code relies on: parameters, operands, dimensions.

A program of ours makes each operation with upstream's own function, and prints the number of each value.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..build.tools import compilers
from ..core.config import Config
from ..core.errors import BuildFailed, CommandFailed
from ..core.process import run
from ..core.records import sha256_bytes
from ..metal import host

WANTED: dict[str, dict[str, tuple[str, ...]]] = {
    "FLASH_ATTN_EXT": {
        "parameter": ("scale", "max_bias", "logit_softcap"),
        "operand": ("Q", "K", "V", "mask", "sinks"),
        "dimension": ("values", "heads", "queries"),
    },
    "SET_ROWS": {"operand": ("source", "rows")},
    "GET_ROWS": {"operand": ("source", "rows")},
    "CPY": {"operand": ("source",)},
}
"""the numbering that our host code and CPU code assume, from 0"""
_OWN = Path(__file__).parent / "meaning.c"
_ABSENT = Path(host.__file__).parent / "recorder" / "absent.c"
_SOURCES = ("ggml/src/ggml.c", "ggml/src/ggml-quants.c", "ggml/src/ggml-turbo*.c", "ggml/src/ggml-threading.cpp")
_FLAGS = ("-O0", "-w", "-D_GNU_SOURCE", '-DGGML_VERSION="0"', '-DGGML_COMMIT="0"')


def changed(tree: Path, config: Config, workspace: Path) -> Iterator[str]:
    """One line for each value with another number in the tree at `tree`. A failed program is a line, too."""
    try:
        said = _program(tree, config, workspace)
    except (BuildFailed, CommandFailed) as error:
        yield error.message.replace(f"{tree}/", "")
        return
    for line in said.splitlines():
        operation, what, name, number = line.split()
        wanted = WANTED[operation][what].index(name)
        if int(number) != wanted:
            actual = f"{what} {number}" if int(number) >= 0 else "in no known place"
            yield f"{operation}: {name} is {actual}, but our code reads it as {what} {wanted}"


def _program(tree: Path, config: Config, workspace: Path) -> str:
    cc, cxx = (tool.require() for tool in compilers(config.build, workspace)[1:])
    sources = [path for pattern in _SOURCES for path in sorted(tree.glob(pattern))]
    if (tree / _SOURCES[-1]).is_file():
        sources.append(_ABSENT)
    else:
        # the miniature, which is small enough to compile completely
        sources += [tree / "ggml/src/ggml-backend.cpp", *sorted((tree / "ggml/src/ggml-cpu").glob("*.c*"))]
    sinks = "ggml_flash_attn_ext_add_sinks(" in (tree / "ggml/include/ggml.h").read_text(encoding="utf-8")
    folders = ("ggml/include", "ggml/src", "ggml/src/ggml-cpu")
    include = [word for folder in folders for word in ("-I", str(tree / folder))]
    headers = [path for folder in folders for path in sorted((tree / folder).glob("*.h"))]
    kept = workspace / "contract" / "objects"

    def compile_one(source: Path) -> Path:
        plus = source.suffix == ".cpp"
        argv = [cxx.path if plus else cc.path, "-std=gnu++17" if plus else "-std=gnu11", *_FLAGS]
        argv += ["-DHAS_SINKS"] if sinks and source == _OWN else []
        contents = b"".join(path.read_bytes() for path in (source, *headers))
        out = kept / f"{sha256_bytes(contents + ' '.join(argv).encode())[:24]}.o"
        if not out.is_file():
            out.parent.mkdir(parents=True, exist_ok=True)
            part = out.with_suffix(".part.o")
            argv += [*include, "-c", str(source), "-o", str(part)]
            run(argv, failure=BuildFailed, what=f"compiling {source.name}")
            part.replace(out)
        return out

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_one, [*sources, _OWN]))
    program = kept / f"meaning-{sha256_bytes(''.join(map(str, objects)).encode())[:16]}"
    if not program.is_file():
        part = program.with_suffix(".part")
        argv = [cxx.path, *map(str, objects), "-lm", "-lpthread", "-o", str(part)]
        run(argv, failure=BuildFailed, what="linking the program that makes upstream's operations")
        part.replace(program)
    return run([program], timeout=60, what="the program that makes upstream's operations").output
