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
from pathlib import Path

from toolchain.core import records
from toolchain.publishing.published import RELEASE_FILE, PublishedRelease


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
    begun = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, env=environment)
    seconds = time.monotonic() - begun
    whole = 0
    for _ in range(options.kills):
        shutil.rmtree(packed / options.release, ignore_errors=True)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        time.sleep(chance.uniform(0, 1.2 * seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (packed / options.release).exists():
            check(packed / options.release)
            whole += 1
    subprocess.run(words, check=True, capture_output=True, env=environment)
    check(packed / options.release)
    assert sorted(path.name for path in packed.iterdir()) == [".lock", options.release]
    sys.stdout.write(f"{options.kills} kills in {seconds:.1f} s of packing: {whole} whole, the others left nothing\n")


def check(folder: Path) -> None:
    """Raise unless everything that release.json states is there."""
    stated = records.read(folder / RELEASE_FILE, PublishedRelease)
    digests = {stated.archive.name: stated.archive.sha256}
    digests |= {one.name: one.sha256 for one in stated.documents.values()}
    for name, digest in digests.items():
        assert records.sha256_file(folder / name) == digest, name


if __name__ == "__main__":
    main()
