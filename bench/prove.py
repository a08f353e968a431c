"""Hold a snapshot against a C compiler: every size, offset, value and signature, by a program made from it.

    .venv/bin/python -m bench.prove FOLDER [--platform linux-aarch64] [--compiler "zig cc -target aarch64-linux"]
    .venv/bin/python -m bench.prove REPOSITORY@REF

The compiler reads the tree's own headers with the headers of its own C library. With `--only-compile`, for a platform
that cannot run here, the checks are assertions that the compiler itself makes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from toolchain.sources import Repository
from toolchain.upstream.surface import trees
from toolchain.upstream.surface.snapshot import take
from toolchain.upstream.surface.surface import Snapshot, Struct
from toolchain.upstream.surface.trees import CommitTree, FolderTree, SourceTree

_MAIN = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
static void bits(const unsigned char * bytes, size_t count, long long * first, long long * width) {
    *first = -1;
    *width = 0;
    for (size_t bit = 0; bit < 8 * count; ++bit) {
        if (bytes[bit / 8] >> (bit % 8) & 1) {
            *first = *first < 0 ? (long long) bit : *first;
            ++*width;
        }
    }
}
"""


@dataclass(frozen=True)
class Check:
    """A constant expression and what it must be; a bit-field has none and is found by setting it."""

    kind: str
    label: str
    expression: str
    expected: int
    width: int = 0


def checks(snapshot: Snapshot) -> list[Check]:
    """Everything in a snapshot that a C compiler can confirm."""
    untagged = {one.name for one in snapshot.declared if one.kind == "typedef" and one.type == one.name}
    found = []
    for struct in snapshot.structs:
        if struct.complete:
            found += _layout(struct, struct.name if struct.name in untagged else f"{struct.kind} {struct.name}")
    for enum in snapshot.enums:
        found += [Check("value", one.name, f"(long long) ({one.name})", one.value) for one in enum.values]
    for macro in snapshot.macros:
        if isinstance(macro.value, str):
            same = f"!strcmp({macro.name}, {json.dumps(macro.value)})"
        else:
            same = f"({macro.name}) == {macro.value!r}"
        found.append(Check("macro", macro.name, same, 1))
    for one in snapshot.declared:
        compatible = f"__builtin_types_compatible_p(__typeof__({one.name}), {one.type})"
        if "(unnamed" not in one.type:
            found.append(Check(one.kind, one.name, compatible, 1))
    return found


def _layout(struct: Struct, tag: str) -> list[Check]:
    found = [
        Check("size", tag, f"sizeof({tag})", struct.size),
        Check("alignment", tag, f"_Alignof({tag})", struct.align),
    ]
    for field in struct.fields:
        label = f"{tag}.{field.name}"
        if field.bitfield:
            found.append(Check("bit-field", label, tag, field.offset, field.bits))
        else:
            found.append(Check("offset", label, f"offsetof({tag}, {field.name})", field.offset // 8))
            found.append(Check("bits", label, f"8 * sizeof((({tag} *) 0)->{field.name})", field.bits))
    return found


def prove(
    tree: SourceTree, snapshot: Snapshot, compiler: list[str], *, only_compile: bool = False
) -> tuple[int, list[str]]:
    """How many checks were made, and which failed. Raises `CalledProcessError` when the program does not compile."""
    layout, files = trees.headers(tree)
    todo = checks(snapshot)
    with tempfile.TemporaryDirectory(prefix="turboquant-prove-") as made:
        root = Path(made)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        includes = "".join(f'#include "{root / name}"\n' for name in files)
        folders = [f"-I{root / folder}" for folder in (layout.llama, layout.ggml, layout.mtmd)]
        # a header may ask for the C++ name of string.h
        (root / "late").mkdir()
        (root / "late" / "cstring").write_text("#include <string.h>\n")
        folders += ["-idirafter", str(root / "late")]
        source, program = root / "prove.c", root / "prove"
        # deprecated functions are checked as well, and their mention is no mistake
        command = [*compiler, "-std=gnu11", "-w", *folders, str(source), "-o", str(program)]
        if only_compile:
            todo = [one for one in todo if not one.width and "strcmp" not in one.expression]
            source.write_text(includes + _MAIN + "".join(_assertion(one) for one in todo))
            done = subprocess.run([*command, "-c", "-ferror-limit=0"], capture_output=True, text=True, check=False)
            failed = [line for line in done.stderr.splitlines() if "error:" in line]
            assert done.returncode == 0 or failed, done.stderr
            return len(todo), failed
        source.write_text(f"{includes}{_MAIN}int main(void) {{\n{''.join(_print(one) for one in todo)}return 0;\n}}\n")
        subprocess.run(command, check=True)
        said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    failed = []
    for one, line in zip(todo, said, strict=True):
        wanted = f"{one.expected} {one.width}"
        if line != wanted:
            failed.append(f"{one.kind} {one.label}: the snapshot says {wanted}, the compiler {line}")
    return len(todo), failed


def _assertion(check: Check) -> str:
    return f'_Static_assert({check.expression} == {check.expected}, "{check.kind} {check.label}");\n'


def _print(check: Check) -> str:
    if not check.width:
        return f'printf("%lld 0\\n", (long long) ({check.expression}));\n'
    member = check.label.partition(".")[2]
    return (
        f"{{ {check.expression} x; long long first, width; memset(&x, 0, sizeof x); x.{member} = ~0; "
        'bits((const void *) &x, sizeof x, &first, &width); printf("%lld %lld\\n", first, width); }\n'
    )


def main() -> int:
    """The command line; ends with 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tree")
    parser.add_argument("--platform", default="linux-x86_64")
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--only-compile", action="store_true")
    given = parser.parse_args()
    path, separator, ref = given.tree.rpartition("@")
    if separator:
        repository = Repository.open(Path(path))
        tree: SourceTree = CommitTree(repository, repository.resolve(ref), ref)
    else:
        tree = FolderTree(Path(given.tree))
    started = time.monotonic()
    snapshot = take(tree, given.platform)
    parsed = time.monotonic()
    count, failed = prove(tree, snapshot, shlex.split(given.compiler), only_compile=given.only_compile)
    proven = time.monotonic()
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(one.kind for one in checks(snapshot)).items())
    sys.stdout.write("".join(f"{line}\n" for line in failed))
    sys.stdout.write(f"{given.tree} on {given.platform}: {count} checks, {len(failed)} mismatches ({kinds})\n")
    sys.stdout.write(f"parsed in {parsed - started:.2f} s, compiled and run in {proven - parsed:.2f} s\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
