"""How render and check grow with the number of edits and the size of the tree: `python -m bench.growth`.

Makes synthetic upstreams in a temporary folder and prints a table with the ratio to the first row. It measures; it
asserts nothing, and pytest does not collect it.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from toolchain.contract.check import check
from toolchain.core.console import Console
from toolchain.series import manifest
from toolchain.series.render import render
from toolchain.stages import Checkout, Pin, Sources

RUNS = 5
SHAPES = [(20, 500), (40, 500), (80, 500), (160, 500), (20, 2_000), (20, 8_000)]
"""(edits, files in the tree); every file has 400 lines"""


def _tree(root: Path, files: int) -> str:
    root.mkdir()
    for number in range(files):
        body = "".join(f"    case KIND_{line}: return {line}; // line {line}\n" for line in range(395))
        path = root / f"src/{number % 50}/file{number}.c"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"int function_{number}(int kind) {{\n    switch (kind) {{\n{body}    }}\n}}\n")
    for args in (["init", "-q"], ["add", "-A"], ["-c", "user.name=T", "-c", "user.email=t@t", "commit", "-qm", "t"]):
        subprocess.run(["git", "-C", str(root), *args], check=True)
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def _series(root: Path, edits: int) -> manifest.Series:
    root.mkdir()
    made: list[dict[str, Any]] = [
        {
            "name": f"edit{number}",
            "file": f"src/{number % 50}/file{number}.c",
            "scope": f"int function_{number}(",
            "anchor": f"case KIND_{number}:",
            "position": "before",
            "insert": "case KIND_NEW: return 0;\n",
        }
        for number in range(edits)
    ]
    part = {"concern": "c", "target": "llama.cpp", "serves": ">=1", "why": "w", "until": "u", "edits": "e.yaml"}
    head = {"version": 1, "types": [], "facts": {}, "parts": [part]}
    (root / "series.yaml").write_text(yaml.safe_dump(head))
    (root / "e.yaml").write_text(yaml.safe_dump({"edits": made}))
    manifest.seal(root)
    return manifest.load(root)


def _sources(tree: Path, commit: str) -> Sources:
    source = {"origin": "", "git_dir": tree / ".git", "commit": commit, "describe": "b1"}
    return Sources(
        ollama=Checkout(target="ollama", **source),  # type: ignore[arg-type]
        llama_cpp=Checkout(target="llama.cpp", **source),  # type: ignore[arg-type]
        era="pinned",
        pin=Pin(name="b1", commit=commit, build=1, exact=True),
    )


def main() -> None:
    """Print the table."""
    out = sys.stdout
    out.write(f"{platform.machine()}, Python {platform.python_version()}, median of {RUNS} runs\n\n")
    out.write("| edits | files | render | check | ratio to the first row |\n|---|---|---|---|---|\n")
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        trees = {count: _tree(Path(folder, f"t{count}"), count) for count in {files for _, files in SHAPES}}
        for row, (edits, files) in enumerate(SHAPES):
            series = _series(Path(folder, f"s{row}"), edits)
            sources = _sources(Path(folder, f"t{files}"), trees[files])
            times: list[tuple[float, float]] = []
            for _ in range(RUNS):
                started = time.perf_counter()
                render(series, sources)
                rendered = time.perf_counter()
                check(series, sources, Console(json=True))
                times.append((rendered - started, time.perf_counter() - rendered))
            render_s, check_s = (statistics.median(column) for column in zip(*times, strict=True))
            first = first or render_s + check_s
            ratio = (render_s + check_s) / first
            out.write(f"| {edits} | {files} | {render_s:.3f} s | {check_s:.3f} s | {ratio:.2f} |\n")
            out.flush()


if __name__ == "__main__":
    main()
