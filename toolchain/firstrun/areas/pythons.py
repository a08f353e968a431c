"""Every Python of this machine, and the one that runs the toolkit."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...core import process
from ..assumption import MACOS, Probe, Verdict, assumed, judged, probed, untested
from ..bench import Bench, Evidence

OLDEST, NEWEST = 11, 14
"""minor versions that ./inv supports"""
_ASK = """
import sys, sysconfig
print(*sys.version_info[:3], sysconfig.get_config_var("Py_GIL_DISABLED") or 0)
import ensurepip, venv
"""
_ASK_S = 20.0


def places() -> tuple[Path, ...]:
    """Where ./inv looks for a Python, in its order: those on PATH, then where installers put them."""
    return tuple(dict.fromkeys(_places()))


def _places() -> Iterator[Path]:
    home = Path(os.environ.get("HOME") or "/nowhere")
    minors = range(NEWEST, OLDEST - 1, -1)
    for entry in filter(None, os.environ.get("PATH", "").split(":")):
        yield from (Path(entry) / f"python3.{minor}" for minor in minors)
        yield Path(entry) / "python3"
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    for minor in minors:
        frameworks = Path(f"/Library/Frameworks/Python.framework/Versions/3.{minor}/bin")
        for folder in (
            Path("/opt/homebrew/bin"), Path("/usr/local/bin"), frameworks,
            *sorted(pyenv.glob(f"versions/3.{minor}.*/bin")), *sorted(uv.glob(f"cpython-3.{minor}.*/bin")),
            Path("/opt/local/bin"),
        ):  # fmt: skip
            yield folder / f"python3.{minor}"


def is_stub(python: Path, has_tools: bool) -> bool:
    """Whether running it would open Apple's dialogue: no developer tools, and it is Apple's or a shim that may be."""
    if sys.platform != "darwin" or has_tools:
        return False
    return any(
        str(path).startswith("/usr/bin/") or "shims" in path.parts for path in (python, Path(os.path.realpath(python)))
    )


def _found(bench: Bench) -> tuple[list[Path], list[Path]]:
    """The Pythons that can be run, one for each program, and Apple's stubs."""
    has_tools = not bench.on_mac or bench.call(("/usr/bin/xcode-select", "-p")).code == 0
    own = {Path(sys.prefix).resolve()}
    real: dict[str, Path] = {}
    stubs = []
    for python in places():
        # os.path: a folder of somebody else's on PATH is as good as empty
        if not (os.path.isfile(python) and os.access(python, os.X_OK)) or python.parent.parent.resolve() in own:  # noqa: PTH113
            continue
        if is_stub(python, has_tools):
            stubs.append(python)
        else:
            real.setdefault(os.path.realpath(python), python)
    return list(real.values()), stubs


def _asked(bench: Bench, python: Path) -> Evidence:
    return bench.call((python, "-I", "-c", _ASK), timeout=_ASK_S)


def _version(seen: Evidence) -> str:
    words = seen.output.split()[:4]
    return ".".join(words[:3]) + ("t" if words[3:] == ["1"] else "") if len(words) == 4 and words[0] == "3" else ""


def _usable(bench: Bench) -> Verdict:
    """Each with its version; what has no venv module is named."""
    found, stubs = _found(bench)
    seen = [_asked(bench, python) for python in found]
    told, usable = [], 0
    for python, answer in zip(found, seen, strict=True):
        version = _version(answer)
        minor = int(version.split(".")[1]) if version else 0
        fits = answer.code == 0 and OLDEST <= minor <= NEWEST and not version.endswith("t")
        usable += fits
        why = "" if fits else " (no)" if answer.code == 0 else " (no venv)" if version else " (does not run)"
        told.append(f"{python} {version}{why}")
    told += [f"{python} (a stub, not run)" for python in stubs]
    return judged(usable > 0, "; ".join(told) or "none found", *seen)


def _stubs(bench: Bench) -> Verdict:
    folder = bench.call(("/usr/bin/xcode-select", "-p"))
    apple = Path("/usr/bin/python3")
    if not apple.exists():
        return untested("there is no /usr/bin/python3", folder)
    if folder.code != 0:
        return judged(is_stub(apple, False), "without developer tools it is taken for a stub, and not run", folder)
    seen = _asked(bench, apple)
    return judged(
        bool(_version(seen)), f"with developer tools it is Python {_version(seen) or 'unknown'}", folder, seen
    )


def _own(_bench: Bench) -> Verdict:
    base = Path(sys.base_prefix)
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, OLDEST) <= sys.version_info[:2] <= (3, NEWEST) and sys.implementation.name == "cpython"
    return judged(fits, f"CPython {version} of {base}, {os.uname().machine}")


def _certificates(_bench: Bench) -> Verdict:
    """python.org's Python has none until its Install Certificates was run."""
    paths = ssl.get_default_verify_paths()
    count = ssl.create_default_context().cert_store_stats()["x509_ca"]
    loaded = count > 0 or any(Path(path).is_dir() and any(Path(path).iterdir()) for path in (paths.capath,) if path)
    return judged(loaded, f"{count} certificates from {paths.cafile or paths.capath or paths.openssl_cafile}")


def _isolated(bench: Bench) -> Verdict:
    """The way in which ./inv starts everything: no user site, no PYTHON* variable."""
    seen = bench.call((sys.executable, "-I", "-c", "import psutil, msgspec, sys; print(sys.prefix)"))
    return judged(
        seen.code == 0 and seen.output.strip() == sys.prefix, "its packages are in the environment alone", seen
    )


def _git(bench: Bench) -> Verdict:
    """A git that is no stub, as ./inv requires."""
    where = shutil.which("git")
    if where is None:
        return judged(False, "no git on PATH")
    if is_stub(Path(where), bool(process.ask(("/usr/bin/xcode-select", "-p"))) if bench.on_mac else True):
        return judged(False, f"{where} is a stub: xcode-select --install")
    seen = bench.call((where, "--version"))
    return judged(seen.code == 0, f"{where}: {seen.output.strip()}", seen)


_assumption = partial(assumed, "python")

PYTHONS = probed(
    "python",
    Probe(
        _assumption(
            "found",
            f"A Python 3.{OLDEST} to 3.{NEWEST} with its venv module is on PATH, or where Homebrew, python.org, pyenv, "
            "uv or MacPorts put it.",
            "Ask each for its version and its venv module.",
        ),
        _usable,
    ),
    Probe(
        _assumption(
            "stub",
            "Without developer tools /usr/bin/python3 is a stub, which xcode-select tells without opening a dialogue.",
            "xcode-select -p; it is run only when that answers.",
            needs=MACOS,
        ),
        _stubs,
    ),
    Probe(_assumption("own", "The toolkit runs on a Python that its locks have wheels for.", "Its own version."), _own),
    Probe(
        _assumption(
            "certificates",
            "The toolkit's Python has certificate authorities to check servers with.",
            "Count those of the default context.",
        ),
        _certificates,
    ),
    Probe(
        _assumption("isolated", "The environment has all packages without the user's own.", "Import two with -I."),
        _isolated,
    ),
    Probe(_assumption("git", "There is a git that is no stub.", "Its version."), _git),
)
