"""Kill `release.pack` at random moments: `python -m tests.publishing.packing_kills --workspace DIR --release ID`.

After each kill, the staged folder is absent or whole. After the last one, packing again leaves nothing of killed runs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from toolchain.publishing.publication import staged_release


def main() -> None:
    """Print how many kills left nothing, and how many a whole release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    packed = options.workspace / "packed"
    words = [sys.executable, "-P", "-c", "import tasks; tasks.start()", "release.pack", "--release", options.release]
    words += ["--workspace", str(options.workspace)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    whole, seconds = 0, 0.0
    for number in range(options.kills + 1):
        shutil.rmtree(packed / options.release, ignore_errors=True)
        shutil.rmtree(packed / ".making", ignore_errors=True)
        with subprocess.Popen(
            words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
        ) as process:  # fmt: skip
            while not (packed / ".making").exists() and process.poll() is None:
                time.sleep(0.001)
            begun = time.monotonic()
            if number:  # the first one only shows how long it takes
                with suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, 1.5 * seconds))
                process.send_signal(signal.SIGKILL)
            process.wait()
            seconds = seconds or time.monotonic() - begun
        if not number:
            continue
        if (packed / options.release).exists():
            staged_release(packed / options.release)
            whole += 1
    subprocess.run(words, check=True, capture_output=True, env=environment)
    staged_release(packed / options.release)
    assert sorted(path.name for path in packed.iterdir()) == [".lock", options.release]
    sys.stdout.write(f"{options.kills} kills in {seconds:.2f} s of packing: {whole} whole, the others left nothing\n")


if __name__ == "__main__":
    main()
