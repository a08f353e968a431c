"""A disk that fills up in an upgrade: `unshare --mount --propagation private python -m tests.provisioning.full_disk`.

The prefix is on a disk of 9 MB. The release before must be what it was, and the next small one is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .place import Mac

CASES = {"too large, as it says itself": (False, 5_000_000), "too large in truth": (True, 5_000_000)}


def main() -> int:
    """Run the cases, print how they ended; how many were not as they should be."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="full-disk-") as name:
        folder = Path(name)
        (folder / "pre & fix").mkdir()
        disk = ["mount", "-t", "tmpfs", "-o", "size=9m,mode=755", "tmpfs", str(folder / "pre & fix")]
        subprocess.run(disk, check=True)
        mac = Mac.make(folder)
        try:
            first = mac.release("1", 1)
            mac.publisher.promote(first)
            mac.run("apply", expect=10)
            for sequence, (case, (lies, size)) in enumerate(CASES.items(), 2):
                released = mac.release(str(sequence), sequence, ballast=os.urandom(size))
                card = mac.publisher.released[released]
                if lies:
                    mac.publisher.publish(replace(card, archive=replace(card.archive, tar_size=1)))
                mac.publisher.promote(released)
                said, now = mac.run("apply"), mac.site.status()
                good = (said.code, now.active, now.healthy, now.releases) == (5, first, True, (first,))
                wrong += not good
                print(f"{'ok' if good else 'WRONG'}  {case}: {said.code}, {said.json['message']}")  # noqa: T201
            mac.publisher.promote(mac.release("small", 9))
            wrong += mac.run("apply").code != 10
        finally:
            mac.close()
            subprocess.run(["umount", "-l", folder / "pre & fix"], check=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
