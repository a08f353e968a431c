"""Other Ollamas beside the service. Nothing of them is started, stopped or changed."""

from __future__ import annotations

import plistlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from ...host.machine import ports
from ...host.ports import listeners
from ...service import account, propertylist
from ...service.manager import Instance
from ...serving.ollama import DEFAULT_PORT
from ..assumption import MACOS, Probe, Verdict, assumed, judged, probed, untested
from ..bench import Bench

_APP, _APP_LABEL = Path("/Applications/Ollama.app"), "com.ollama.ollama"
_BREW_LABEL = "homebrew.mxcl.ollama"
_BREW_VARIABLES = ("OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE")
_BREW_PROGRAMS = (Path("/opt/homebrew/bin/ollama"), Path("/usr/local/bin/ollama"))


def _port(_bench: Bench) -> Verdict:
    pids, found = listeners(DEFAULT_PORT), ports({DEFAULT_PORT})
    if not pids and not found:
        return untested(f"nobody listens on {DEFAULT_PORT}")
    answers = f"Ollama {found[0].ollama} answers" if found and found[0].ollama else "no Ollama answers"
    who = ", ".join(_named(pid) for pid in pids if pid) or "a process that cannot be seen"
    return judged(any(pids), f"on {DEFAULT_PORT} listens {who}; {answers}")


def _processes(_bench: Bench) -> Verdict:
    """All with ollama for a name, with their places."""
    seen, hidden = [], 0
    for one in psutil.process_iter(["name", "exe"]):
        if "ollama" not in (one.info["name"] or "").lower():
            continue
        hidden += one.info["exe"] is None
        seen.append(f"{one.pid} ({one.info['exe'] or one.info['name']})")
    if not seen:
        return untested("no other ollama runs")
    return judged(not hidden, f"{', '.join(seen)}{f'; the program of {hidden} is hidden' if hidden else ''}")


def _app(bench: Bench) -> Verdict:
    if not _APP.is_dir():
        return untested("Ollama.app is not in /Applications")
    version = bench.call(("/usr/bin/defaults", "read", _APP / "Contents/Info", "CFBundleShortVersionString"))
    running = [one.pid for one in psutil.process_iter(["exe"]) if "/Ollama.app/" in (one.info["exe"] or "")]
    there = _loaded(bench, _APP_LABEL)
    reason = f"{version.output.strip()}; {_APP_LABEL} is loaded {_where(there)}; running: {running or 'nothing'}"
    return judged(bool(there), reason, version) if running else untested(f"it does not run: {reason}", version)


def _brew(bench: Bench) -> Verdict:
    programs = [path for path in _BREW_PROGRAMS if path.exists()]
    plist = account.caller().home / f"Library/LaunchAgents/{_BREW_LABEL}.plist"
    there = _loaded(bench, _BREW_LABEL)
    if not programs and not plist.exists() and not there:
        return untested("Homebrew's Ollama is not installed")
    if not plist.exists():
        return judged(not there, f"installed ({programs}), and no service: loaded {_where(there)}")
    content = propertylist.read(plist)
    variables, types = content.get("EnvironmentVariables", {}), content.get("LimitLoadToSessionType", [])
    seen = bench.keep(f"the property list {plist}", 0, 0.0, plistlib.dumps(content).decode())
    shown = {name: str(variables.get(name, "missing")) for name in _BREW_VARIABLES}
    whole = content.get("KeepAlive") is True and set(types) == set(propertylist.SESSION_TYPES)
    reason = f"loaded {_where(there)}; variables {shown}; KeepAlive {content.get('KeepAlive')}; sessions {types}"
    return judged(whole and "missing" not in shown.values(), reason, seen)


def _loaded(bench: Bench, label: str) -> tuple[Instance, ...]:
    manager = bench.manager
    return manager.adopt(replace(manager.registration, label=label)).instances()


def _where(there: tuple[Instance, ...]) -> str:
    return ", ".join(f"in {one.manager.registration.domain} (pid {one.state.pid})" for one in there) or "nowhere"


def _setenv(bench: Bench) -> Verdict:
    """`launchctl setenv`, with which people configure Ollama.app: what it holds would reach an agent of ours."""
    names = ("OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION")
    seen = [bench.launchctl("getenv", name) for name in names]
    found = [name for name, one in zip(names, seen, strict=True) if one.code == 0 and one.output.strip()]
    return judged(not found, f"set: {', '.join(found)}" if found else "none of ours is set", *seen)


def _named(pid: int) -> str:
    try:
        return f"pid {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"pid {pid}"


_assumption = partial(assumed, "neighbours")

NEIGHBOURS = probed(
    "neighbours",
    Probe(
        _assumption(
            "port", f"Whoever listens on {DEFAULT_PORT} is found with its pid.", "Look, and ask for its version."
        ),
        _port,
    ),
    Probe(
        _assumption("processes", "The program of every other ollama can be seen.", "List the processes."), _processes
    ),
    Probe(
        _assumption(
            "app", f"Ollama.app is {_APP_LABEL} in launchd while it runs.", "Compare the processes with launchd.", MACOS
        ),
        _app,
    ),
    Probe(
        _assumption(
            "homebrew",
            f"Homebrew's Ollama is {_BREW_LABEL}, for all five session types, kept alive, with "
            f"{' and '.join(_BREW_VARIABLES)}.",
            "Read its property list.",
            MACOS,
        ),
        _brew,
    ),
    Probe(
        _assumption("setenv", "launchctl setenv gives agents no variable of Ollama's.", "launchctl getenv.", MACOS),
        _setenv,
    ),
)
