"""The miniature llama.cpp with the series applied."""

from __future__ import annotations

import subprocess
from pathlib import Path

from toolchain import miniature, pipeline
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run


def patched_miniature(folder: Path, *, split_kernels: bool = False) -> Path:
    """A llama.cpp in miniature with the series applied, as a plain folder."""
    upstream = miniature.materialize(folder, split_kernels=split_kernels)
    (folder / "turboquant.yaml").touch()
    flags = {
        "workspace": str(folder / "workspace"),
        "sources.ollama": str(upstream.ollama),
        "sources.llama_cpp": str(upstream.llama_cpp),
    }
    run = Run(config=load(file=folder / "turboquant.yaml", environ={}, flags=flags), console=Console(json=True))
    rendered = pipeline.render_series(run, pipeline.prepare(run))
    diff = next(target.diff for target in rendered.targets if target.target == "llama.cpp")
    subprocess.run(["git", "apply"], cwd=upstream.llama_cpp, input=diff, text=True, check=True)
    return upstream.llama_cpp
