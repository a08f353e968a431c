"""A longer run, by hand:

    python -W error -m tests.fuzz SUBJECT --cases 60000 --first 0

Findings are anything but an expected error, a case of more than 2 s, memory beyond 500 MB, and traces outside the
case's folder; each with the number that makes the case again. A case that takes a minute ends the run with where it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .subject import Place, findings, summary
from .subjects import SUBJECTS


def main() -> int:
    """Run, print findings, and end with 1 if there are any."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("subject", choices=SUBJECTS)
    flags.add_argument("--cases", type=int, default=1000)
    flags.add_argument("--first", type=int, default=0)
    flags.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    given = flags.parse_args()
    begun, found, outcomes, done = time.monotonic(), 0, dict[str, int](), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for number in range(given.first, given.first + given.cases):
            if time.monotonic() - begun > given.seconds:
                break
            done += 1
            for line in findings(SUBJECTS[given.subject], [number], place, outcomes):
                found += 1
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    line, code = summary(given.subject, done, begun, found, outcomes)
    sys.stdout.write(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
