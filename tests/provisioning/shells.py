"""The life of a service with each shell and each awk that this machine has: `python -m tests.provisioning.shells`.

macOS has bash's sh mode and awk of Kernighan (Debian: original-awk). With busybox, its other tools are used as well.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from .place import Mac

PAIRS = (("dash", "original-awk"), ("dash", "mawk"), ("bash --posix", "gawk"), ("busybox sh", "busybox awk"))
_TOOLS = (
    *("sed", "grep", "tar", "sha256sum", "find", "tr", "cut", "sort", "tail", "mktemp", "mv", "cp", "ln", "od"),
    *("df", "wc", "date", "readlink", "cmp", "diff", "rm", "mkdir", "chmod", "sync"),
)
EXPECTED = {
    "first": 10,
    "second": 10,
    "again": 0,
    "edited": 20,
    "repair": 10,
    "unhealthy": 51,
    "rollback": 10,
    "uninstall": 10,
}


def life(folder: Path, shell: str, awk: str) -> dict[str, int]:
    """The exit codes of a service's life."""
    mac = Mac.make(folder, shell=shlex.split(shell), kv_cache_type="f16:turbo4")
    tools = {"awk": awk} | ({name: f"busybox {name}" for name in _TOOLS} if shell.startswith("busybox") else {})
    for name, command in tools.items():
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)
    codes = {}
    try:
        for sequence, name in enumerate(("first", "second"), 1):
            mac.publisher.promote(mac.release(name, sequence))
            codes[name] = mac.run("apply").code
        codes["again"] = mac.run("apply").code
        mac.site.prefix.shim.write_text("edited")
        codes["edited"] = mac.run("status").code
        codes["repair"] = mac.run("apply").code
        mac.publisher.promote(mac.release("third", 3, does="exit"))
        for verb, name in (("apply", "unhealthy"), ("rollback", "rollback"), ("uninstall", "uninstall")):
            codes[name] = mac.run(verb).code
    finally:
        mac.close()
    return codes


def main() -> int:
    """Run them, print the codes; how many lives were not as they should be."""
    wrong = 0
    for shell, awk in PAIRS:
        if not all(shutil.which(words.split()[0]) for words in (shell, awk)):
            print(f"{shell}, {awk}: not installed")  # noqa: T201
            continue
        with tempfile.TemporaryDirectory(prefix="shells-") as folder:
            codes = life(Path(folder), shell, awk)
        wrong += codes != EXPECTED
        print(f"{'ok' if codes == EXPECTED else 'WRONG'}  {shell}, {awk}: {codes}", flush=True)  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
