"""Verify a built release whose GPU is the stand-in, once sound and once with each fault, and print what failed.

    python -m tests.verify.stand_in RELEASE LLAMA_CPP FOLDER [--probe] [FAULT...]

RELEASE was built on Linux with ggml's backends as libraries, which is the default there. LLAMA_CPP is its scratch tree.
FOLDER gets copies, logs and reports; each verification takes about a minute. With --probe, turbo-probe is compiled anew
from patches/kernels. This is for a person to run: it needs a real build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from toolchain.core import config, records
from toolchain.core.console import Console
from toolchain.core.errors import ToolchainError
from toolchain.proofs import Verification
from toolchain.verify import verify

FAULTS = ("sound", "no-attention-64", "mask", "mixed", "nothing", "absent", "noise=0.001", "slow=21")
_KERNELS = Path(__file__).parents[3] / "patches" / "kernels"
_DEFINITIONS = ("-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED", "-DGGML_BACKEND_BUILD", "-DGGML_SHARED")


def install(release: Path, llama_cpp: Path, folder: Path, *, probe: bool) -> Path:
    """A copy of a release with the stand-in as libggml-metal."""
    copy = folder / release.name
    if not copy.exists():
        shutil.copytree(release, copy, symlinks=True)
    libraries, ggml = copy / "lib" / "ollama", llama_cpp / "ggml"
    common = ["-std=c++17", "-O2", "-I", str(ggml / "include"), "-I", str(ggml / "src")]
    source = str(Path(__file__).with_name("device.cpp"))
    made = [*common, "-fPIC", "-shared", *_DEFINITIONS, source, "-o", str(libraries / "libggml-metal.so")]
    subprocess.run(["c++", *made], check=True)
    if probe:
        program = libraries / "turbo-probe"
        program.chmod(0o755)
        sources = [str(_KERNELS / name) for name in ("turbo-probe.cpp", "turbo-probe-device.cpp")]
        linked = ["-L", str(libraries), "-lggml", "-lggml-base", "-Wl,-rpath,$ORIGIN", "-o", str(program)]
        subprocess.run(["c++", *common, "-DTURBO_PROBE_HINT", "-I", str(_KERNELS), *sources, *linked], check=True)
    return copy


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a section for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("release", "llama_cpp", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("faults", nargs="*", default=FAULTS)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    copy = install(asked.release.absolute(), asked.llama_cpp.absolute(), asked.folder.absolute(), probe=asked.probe)
    settings = config.load(environ={}, flags={"verify.gpu": "required", "verify.types": "turbo4,q8_0:turbo4"})
    os.environ.pop("STAND_IN_FAULT", None)
    for fault in asked.faults:
        (copy / "lib" / "ollama" / "stand-in-fault").write_text("" if fault == "sound" else fault)
        kept = asked.folder / f"verification-{fault}"
        say(f"== {fault}")
        try:
            verify(copy, settings, Console(json=True), workspace=asked.folder, kept=kept)
        except ToolchainError as error:
            say(f"FAILED: {error.message}")
        else:
            say("proven")
        found = records.read(kept / "verification.json", Verification)
        for start in found.gpu.starts if found.gpu else ():
            say(f"   {start.program}: first {start.first_s} s, second {start.second_s} s")
        for one in found.gpu.comparisons if found.gpu else ():
            where = f"cache in {', '.join(one.cache_on)}, {one.offloaded}/{one.layers} layers, {one.splits} parts"
            say(f"   {one.kv_cache_type}: {where}; {one.equal}/{one.tokens} tokens, margin {one.margin:.3g}, "
                f"KL {one.kl:.3g}, noise {one.noise:.3g}")  # fmt: skip
        for proof in found.proofs:
            say(f"   {proof.kv_cache_type} at {proof.head_size} under Ollama: size_vram {proof.on_gpu}, ok {proof.ok}")


if __name__ == "__main__":
    main()
