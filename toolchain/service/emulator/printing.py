"""The texts that `launchctl print` and `print-disabled` give, in launchd's own layout."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping

from .job import LoadedJob

_SPAWN_TYPES = {"Interactive": "interactive (4)", "Adaptive": "adaptive (6)", "Background": "background (2)"}


def service(job: LoadedJob) -> str:
    """`launchctl print <domain>/<label>`. The first `state`, `pid`, `runs` and `last exit code` are the job's own."""
    spec = job.spec
    lines = [
        f"active count = {int(bool(job.pid))}",
        f"path = {job.path}",
        "type = LaunchDaemon" if job.domain == "system" else "type = LaunchAgent",
        f"state = {'running' if job.state == 'stopping' else job.state}",
        "",
        f"program = {spec.program}",
        *_block("arguments", spec.arguments),
        "",
        f"working directory = {spec.directory}",
        "",
        f"stdout path = {spec.stdout or '/dev/null'}",
        f"stderr path = {spec.stderr or '/dev/null'}",
        *_block("environment", (f"{key} => {value}" for key, value in sorted(spec.environment.items()))),
        "",
        f"domain = {job.domain}",
        f"minimum runtime = {job.throttle_s:g}",
        f"exit timeout = {spec.exit_timeout_s:g}",
        f"runs = {job.runs}",
    ]
    if job.pid:
        lines.append(f"pid = {job.pid}")
    lines += [_last_exit(job.last_status), "", f"spawn type = {_SPAWN_TYPES.get(spec.process_type, 'daemon (3)')}"]
    return _braced(job.target, lines)


def domain(name: str, jobs: Iterable[LoadedJob]) -> str:
    """`launchctl print <domain>`: the services with their pids."""
    return _braced(name, _block("services", (f"{job.pid:>8} {'-':>6} \t{job.spec.label}" for job in jobs)))


def disabled(records: Mapping[str, bool]) -> str:
    """`launchctl print-disabled <domain>`: labels that were ever disabled or enabled; true is disabled."""
    rows = (f'"{label}" => {"disabled" if off else "enabled"}' for label, off in sorted(records.items()))
    return "\n".join(_block("disabled services", rows)) + "\n"


def _last_exit(status: int | None) -> str:
    if status is None:
        return "last exit code = (never exited)"
    if status < 0:
        return f"last terminating signal = {signal.strsignal(-status)}: {-status}"
    return f"last exit code = {status}"


def _block(name: str, rows: Iterable[str]) -> list[str]:
    return [f"{name} = {{", *(f"\t{row}" for row in rows), "}"]


def _braced(name: str, lines: Iterable[str]) -> str:
    return f"{name} = {{\n" + "".join(f"\t{line}".rstrip() + "\n" for line in lines) + "}\n"
