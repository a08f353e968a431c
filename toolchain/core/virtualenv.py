"""Makes .venv for `./inv`, which runs this file with any supported Python and the standard library alone.

The environment is built beside its place and renamed, so that the one before stands until then. A lock makes a second
`./inv` wait. Whatever is killed, the next call starts from a whole environment, or from none.

Arguments: the checkout, the environment's path, its stamp (a line for the folder and for each lock), the locks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

STAMP = ".stamp"
FAILED = 7
"""exit code of `MissingTool`, which `./inv` reports"""


def main(checkout: Path, place: Path, stamp: str, locks: list[str]) -> int:
    """Bring the environment up to date. Returns an exit code; its messages go to stderr."""
    with place.with_name(f"{place.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another ./inv is setting up {place}; waiting ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        new, old = (place.with_name(f"{place.name}.{suffix}") for suffix in ("new", "old"))
        if old.exists() and not place.exists():
            old.rename(place)  # killed between the two renames below
        shutil.rmtree(old, ignore_errors=True)
        lines = stamp.splitlines()
        has = _stamp(place)
        if has[:1] == lines[:1] and set(lines) <= set(has):
            return 0  # another ./inv was quicker
        _say(f"setting up {place} from {' '.join(locks)} with {sys.executable} ...")
        try:
            if has and set(has) <= set(lines):  # extras are added to it
                _install(place, checkout, locks)
                (place / STAMP).write_text(f"{stamp}\n")
                return 0
            shutil.rmtree(new, ignore_errors=True)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(new)
            _install(new, checkout, locks)
            _relocate(new, place)
            (new / STAMP).write_text(f"{stamp}\n")  # last: what has it is complete
            if place.exists():
                place.rename(old)
            new.rename(place)
        except subprocess.CalledProcessError as error:
            if "ensurepip" in error.cmd:
                _say(f"{sys.executable} cannot make a virtual environment: {error.output!r}")
            else:
                _say(
                    f"the packages of {' '.join(locks)} could not be installed: check the network and the package index"
                )
            return FAILED
        finally:
            if old.exists() and not place.exists():
                old.rename(place)  # ended between the two renames above
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
    return 0


def _stamp(place: Path) -> list[str]:
    """The stamp's lines of an environment that has all that it lists; empty if it is not usable."""
    try:
        usable = os.access(place / "bin/python", os.X_OK)
        return (place / STAMP).read_text().splitlines() if usable else []
    except OSError:
        return []


def _install(folder: Path, checkout: Path, locks: list[str]) -> None:
    """Raises `CalledProcessError`. Only TURBOQUANT_PIP_CONFIG configures pip, no PIP_* and no pip.conf of the user."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ["PIP_CONFIG_FILE"] = os.environ.get("TURBOQUANT_PIP_CONFIG") or os.devnull
    # A lock is complete; an extra's lock omits what requirements.lock has.
    flags = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:", "--no-deps"]
    argv = [str(folder / "bin/python"), "-I", "-m", "pip", "install", *flags, *(f"-r{lock}" for lock in locks)]
    subprocess.run(argv, cwd=checkout, env=environ, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _relocate(new: Path, place: Path) -> None:
    """Write the final path into the scripts, which name their interpreter."""
    for path in (new / "pyvenv.cfg", *(new / "bin").iterdir()):
        if path.is_file() and not path.is_symlink() and b"\0" not in (data := path.read_bytes()):
            path.write_bytes(data.replace(os.fsencode(new), os.fsencode(place)))


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _end(number: int, _frame: object) -> None:
    """A signal ends the set-up with what is temporary deleted; another one does not disturb that."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _end)
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
    except OSError as error:
        _say(f"{error.filename or sys.argv[2]}: {error.strerror}")
        sys.exit(FAILED)
