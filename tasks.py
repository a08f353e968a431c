"""The tasks of `./inv`; they are defined in toolchain/tasks/."""

from __future__ import annotations

import sys

from toolchain.tasks import main, namespace

__all__ = ["namespace", "start"]


def start() -> None:
    """`./inv`."""
    main(sys.argv[1:])
