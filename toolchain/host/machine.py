"""What this machine is: memory, chip, GPU, system, disk, and what listens on Ollama's port. Unknown facts are reported.

On macOS the facts come from sysctl, sw_vers, system_profiler and xcode-select, elsewhere from psutil and /proc. Sizes
are in bytes. Changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ..build import platform_name
from ..core.config import Config
from ..core.errors import ServerFailed, ToolchainError
from ..core.process import ask, run
from ..core.records import record
from ..proofs import RanOn
from ..serving.ollama import DEFAULT_PORT, OllamaClient
from . import gpulimit
from .gpulimit import GpuLimit
from .ports import listeners

_TIMEOUT_S = 30.0
_ANSWER_S = 2.0
_SYSCTL = ("hw.memsize", "machdep.cpu.brand_string", "hw.physicalcpu", gpulimit.SET)
# Apple's Metal feature set tables.
_GPU_FAMILIES = {"M1": "Apple7", "M2": "Apple8", "M3": "Apple9", "M4": "Apple9", "M5": "Apple10"}


@record
class Port:
    """A loopback port with a listener. `ollama` is the version of an Ollama there; empty for other programs."""

    number: int
    ollama: str
    program: str
    """empty without permission to see it"""


@record
class Machine:
    """The facts. Unknown texts are empty and unknown sizes 0; `unknown` says why."""

    platform: str
    """as in Linux x86_64 or Darwin arm64"""
    system: str
    """as in macOS 15.6 (24G84)"""
    chip: str
    cores: int
    gpu: str
    gpu_family: str
    ram: int
    gpu_limit: int
    """bytes of RAM that Metal surely lets the GPU use; 0 without Metal"""
    gpu_limit_most: int
    """bytes that it may let it use: more where Metal was not asked"""
    gpu_limit_source: str
    """what says so"""
    gpu_limit_by_hand: bool
    """whether iogpu.wired_limit_mb says so, which a reboot undoes"""
    developer_tools: str
    """folder of Xcode or its command line tools"""
    free_disk: int
    """free bytes on the workspace's disk"""
    ports: tuple[Port, ...]
    unknown: tuple[str, ...]

    @property
    def limit(self) -> GpuLimit:
        """How much of the memory Metal lets the GPU use."""
        return GpuLimit(
            low=self.gpu_limit,
            high=self.gpu_limit_most,
            source=self.gpu_limit_source,
            by_hand=self.gpu_limit_by_hand,
        )


def look(config: Config) -> Machine:
    """Collect the facts of this machine."""
    unknown: list[str] = []
    if sys.platform == "darwin":
        facts = _mac(unknown)
    else:
        facts = _elsewhere(unknown)
    there = Path(config.workspace).expanduser().absolute()
    there = next(folder for folder in (there, *there.parents) if folder.is_dir())
    return Machine(
        platform=f"{platform.system()} {platform.machine()}",
        free_disk=shutil.disk_usage(there).free,
        ports=ports({DEFAULT_PORT, config.deploy.port}),
        **facts,
        unknown=tuple(unknown),
    )


def described(config: Config) -> str:
    """Chip, cores, memory and system in one line, as far as they are known."""
    found = look(config)
    parts = (
        found.chip or found.platform,
        found.cores and f"{found.cores} cores",
        found.gpu if found.gpu != found.chip else "",
        found.ram and f"{found.ram / (1 << 30):.1f} GiB of memory",
        found.system,
    )
    return ", ".join(part for part in parts if part)


def in_short() -> RanOn:
    """What this machine is, in short."""
    named = parse_sw_vers(ask(("/usr/bin/sw_vers",))) if sys.platform == "darwin" else ""
    system = f"{named or f'{platform.system()} {platform.release()}'}, {platform.machine()}"
    return RanOn(platform=platform_name(), system=system)


def ports(numbers: set[int]) -> tuple[Port, ...]:
    """Those of the loopback ports `numbers` that have a listener."""
    found = []
    for number in sorted(numbers):
        with socket.socket() as probe:
            probe.settimeout(_ANSWER_S)
            if probe.connect_ex(("127.0.0.1", number)) != 0:
                continue
        try:
            version = OllamaClient(f"http://127.0.0.1:{number}", _ANSWER_S).version()
        except ServerFailed:
            version = ""
        found.append(Port(number=number, ollama=version, program=_program(number)))
    return tuple(found)


def parse_sysctl(text: str) -> dict[str, str]:
    """`sysctl NAME...`: a line `name: value` for each name that this system knows."""
    return dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"[\w.]+: ", line))


def parse_sw_vers(text: str) -> str:
    """`sw_vers`, as in macOS 15.6 (24G84); empty for other output."""
    facts = dict(re.findall(r"^(\w+):\s+(.+?)\s*$", text, re.MULTILINE))
    if not {"ProductName", "ProductVersion", "BuildVersion"} <= facts.keys():
        return ""
    return f"{facts['ProductName']} {facts['ProductVersion']} ({facts['BuildVersion']})"


def parse_displays(text: str) -> str:
    """`system_profiler -json SPDisplaysDataType`: the first GPU and its cores; empty when there is none."""
    try:
        first = json.loads(text)["SPDisplaysDataType"][0]
        model, cores = str(first["sppci_model"]), str(first.get("sppci_cores", ""))
    except (ValueError, AttributeError, KeyError, IndexError, RecursionError, TypeError):
        return ""
    return f"{model}, {cores} cores" if cores else model


def gpu_family(chip: str) -> str:
    """Metal's family of an Apple chip's GPU, as in Apple9; empty for an unknown chip."""
    match = re.match(r"Apple (M\d+)", chip)
    return _GPU_FAMILIES.get(match[1], "") if match else ""


def _mac(unknown: list[str]) -> dict[str, Any]:
    values = parse_sysctl(_said(["sysctl", *_SYSCTL], unknown))
    ram = _number(values, "hw.memsize", unknown)
    chip = values.get("machdep.cpu.brand_string", "")
    family = gpu_family(chip)
    if not family:
        unknown.append(f"the GPU family of {chip or 'this chip'}")
    system = parse_sw_vers(_said(["sw_vers"], unknown))
    gpu = parse_displays(_said(["system_profiler", "-json", "SPDisplaysDataType"], unknown))
    if not gpu:
        unknown.append("the GPU: system_profiler names none")
    limit = values.get(gpulimit.SET, "0")
    return {
        "system": system,
        "chip": chip,
        "cores": _number(values, "hw.physicalcpu", unknown),
        "gpu": gpu,
        "gpu_family": family,
        "ram": ram,
        **_flat(gpulimit.of_machine(ram, int(limit) if limit.isdigit() else 0, gpulimit.measure())),
        "developer_tools": _said(["xcode-select", "-p"], unknown).strip(),
    }


def _flat(limit: GpuLimit) -> dict[str, Any]:
    return {
        "gpu_limit": limit.low,
        "gpu_limit_most": limit.high,
        "gpu_limit_source": limit.source,
        "gpu_limit_by_hand": limit.by_hand,
    }


def _elsewhere(unknown: list[str]) -> dict[str, Any]:
    unknown += ["the GPU, which is examined on macOS only"]
    chip = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        chip = match[1].strip() if match else ""
    if not chip:
        unknown.append("the chip: /proc/cpuinfo does not name it")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "chip": chip,
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 0,
        "gpu": "",
        "gpu_family": "",
        "ram": psutil.virtual_memory().total,
        **_flat(gpulimit.NONE),
        "developer_tools": "",
    }


def _said(argv: list[str], unknown: list[str]) -> str:
    """A program's output; empty, with the reason in `unknown`, when it fails."""
    try:
        done = run(argv, timeout=_TIMEOUT_S, check=False)
    except ToolchainError as error:
        unknown.append(error.message)
        return ""
    if done.returncode != 0 and argv[0] != "sysctl":  # sysctl prints what it knows, and fails for the rest
        last = (done.output.strip().splitlines() or ["no message"])[-1]
        unknown.append(f"{' '.join(argv)}: {last}")
        return ""
    return done.output


def _number(values: Mapping[str, str], name: str, unknown: list[str]) -> int:
    value = values.get(name, "")
    if not value.isdigit():
        unknown.append(f"{name}: sysctl does not say")
        return 0
    return int(value)


def _program(port: int) -> str:
    """The program that listens on a port; empty without permission to see it."""
    for pid in filter(None, listeners(port)):
        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).name()} (pid {pid})"
    return ""
