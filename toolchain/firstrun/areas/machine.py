"""The machine, and the session that this run has on it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import sys
import time
from functools import partial

import psutil

from ...build import apple
from ...core.deadline import Deadline
from ...host import gpulimit
from ...host import machine as host
from ...host.ports import listeners
from ...service import account
from ..assumption import MACOS, Probe, Verdict, assumed, confirmed, judged, probed, untested
from ..bench import FRAMEWORKS, Bench, Evidence

_MIB, _GIB = 1 << 20, 1 << 30
_METAL = """#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
int main(void) {
    id<MTLDevice> device = MTLCreateSystemDefaultDevice();
    if (device == nil) { printf("no device\\n"); return 1; }
    printf("device %s\\n", device.name.UTF8String);
    printf("recommendedMaxWorkingSetSize %llu\\n", (unsigned long long)device.recommendedMaxWorkingSetSize);
    printf("maxBufferLength %llu\\n", (unsigned long long)device.maxBufferLength);
    printf("maxThreadgroupMemoryLength %llu\\n", (unsigned long long)device.maxThreadgroupMemoryLength);
    printf("hasUnifiedMemory %d\\n", device.hasUnifiedMemory);
    for (int family = 1; family <= 12; family++)
        if ([device supportsFamily:(MTLGPUFamily)(1000 + family)]) printf("family Apple%d\\n", family);
    return 0;
}
"""
_PROGRAMS = "/usr/bin"
_SYSCTL, _SCUTIL = "/usr/sbin/sysctl", "/usr/sbin/scutil"
_SEEN_S = 10.0
_SLACK = 0.02
"""of the limit, as a share: Metal rounds it"""


def _system(bench: Bench) -> Verdict:
    seen = bench.call((f"{_PROGRAMS}/sw_vers",))
    found = host.parse_sw_vers(seen.output)
    return judged(bool(found), found or "sw_vers does not name product, version and build", seen)


def _chip(bench: Bench) -> Verdict:
    seen = _sysctl(bench, "machdep.cpu.brand_string", "hw.memsize", "hw.physicalcpu", "hw.perflevel0.physicalcpu")
    values = host.parse_sysctl(seen.output)
    chip, ram = values.get("machdep.cpu.brand_string", ""), values.get("hw.memsize", "")
    family = host.gpu_family(chip)
    reason = f"{chip or 'no chip'}, {int(ram) / _GIB:.0f} GiB" if ram.isdigit() else chip or "no chip"
    return judged(bool(family) and ram.isdigit(), f"{reason}, GPU family {family or 'unknown'}", seen)


def _native(bench: Bench) -> Verdict:
    seen = _sysctl(bench, "sysctl.proc_translated", "hw.optional.arm64")
    values = host.parse_sysctl(seen.output)
    translated = values.get("sysctl.proc_translated") == "1"
    name = f"{platform.machine()}, sysctl.proc_translated = {values.get('sysctl.proc_translated', 'unknown')}"
    if translated:
        return judged(False, f"this Python runs under Rosetta ({name}): start ./inv with an arm64 Python", seen)
    return judged(platform.machine() == "arm64", name, seen)


def _tools(bench: Bench) -> Verdict:
    """Without running a stub: xcode-select tells whether there is something behind them."""
    folder = bench.call((f"{_PROGRAMS}/xcode-select", "-p"))
    if folder.code != 0:
        return judged(False, f"no developer tools: {apple.TOOLS_HINT}", folder)
    clang = bench.call((f"{_PROGRAMS}/xcrun", "clang", "--version"))
    if clang.code == apple.LICENCE_CODE or (clang.code != 0 and apple.LICENCE.search(clang.output)):
        return judged(False, f"the licence of Xcode was not agreed to: {apple.LICENCE_HINT}", folder, clang)
    major = re.search(r"clang version (\d+)", clang.output)
    reason = f"{folder.output.strip()}: {clang.output.strip().splitlines()[0] if clang.output.strip() else 'no answer'}"
    return judged(clang.code == 0 and bool(major), reason, folder, clang)


def _metal(bench: Bench) -> Verdict:
    seen = _device(bench)
    if isinstance(seen, Verdict):
        return seen
    name = re.search(r"^device (.+)$", seen.output, re.MULTILINE)
    how = "over SSH" if _ssh() else "here"
    return judged(name is not None, f"{name[1] if name else 'MTLCreateSystemDefaultDevice gives nil'} {how}", seen)


def _families(bench: Bench) -> Verdict:
    seen = _device(bench)
    if isinstance(seen, Verdict):
        return seen
    chip = host.parse_sysctl(_sysctl(bench, "machdep.cpu.brand_string").output).get("machdep.cpu.brand_string", "")
    stated, real = host.gpu_family(chip), re.findall(r"^family (Apple\d+)$", seen.output, re.MULTILINE)
    if not real:
        return untested("the device names no family", seen)
    return judged(stated == real[-1], f"{chip}: {real[-1]} by Metal, {stated or 'none'} by our table", seen)


def _limit(bench: Bench) -> Verdict:
    seen = _device(bench)
    if isinstance(seen, Verdict):
        return seen
    known = _sysctl(bench, "hw.memsize", "iogpu.wired_limit_mb")
    values = host.parse_sysctl(known.output)
    real = re.search(r"^recommendedMaxWorkingSetSize (\d+)$", seen.output, re.MULTILINE)
    if real is None or not values.get("hw.memsize", "").isdigit():
        return untested("Metal or sysctl does not say", seen, known)
    ram, wired = int(values["hw.memsize"]), values.get(gpulimit.SET, "0")
    ours = gpulimit.of_machine(ram, int(wired) if wired.isdigit() else 0, 0)
    range_ = f"{ours.low / _GIB:.2f}" + (f" to {ours.high / _GIB:.2f}" if ours.high > ours.low else "")
    reason = f"of {ram / _GIB:.0f} GiB Metal may use {int(real[1]) / _GIB:.2f} GiB; we expect {range_} GiB"
    within = ours.low * (1 - _SLACK) <= int(real[1]) <= ours.high * (1 + _SLACK)
    asked = gpulimit.measure()
    if asked != int(real[1]):
        return judged(False, f"{reason}; the planner's own question got {asked / _GIB:.2f} GiB", seen, known)
    return judged(within, reason, seen, known)


def _wired(bench: Bench) -> Verdict:
    seen = _sysctl(bench, "iogpu.wired_limit_mb")
    value = host.parse_sysctl(seen.output).get("iogpu.wired_limit_mb", "")
    return judged(value.isdigit(), f"iogpu.wired_limit_mb = {value or 'unknown'}", seen)


def _device(bench: Bench) -> Evidence | Verdict:
    """Metal's own words about the GPU, asked once."""
    program = bench.folder / "metal-device"
    asked = next((one for one in bench.kept if one.command == shlex.quote(str(program))), None)
    if asked is not None:
        return asked
    if bench.call((f"{_PROGRAMS}/xcode-select", "-p")).code != 0:
        return untested("needs developer tools, to compile a program of 12 lines", bench.kept[-1])
    source = bench.folder / "metal-device.m"
    source.write_text(_METAL)
    made = bench.call((f"{_PROGRAMS}/xcrun", "clang", "-fobjc-arc", *FRAMEWORKS, "-o", program, source), timeout=120)
    return bench.call((program,)) if made.code == 0 else untested("the program does not compile", made)


def _session(bench: Bench) -> Verdict:
    seen = bench.launchctl("managername")
    said = seen.output.strip()
    wanted = "System" if bench.privileged else "Background" if _ssh() else "Aqua"
    where = "root" if bench.privileged else "over SSH" if _ssh() else "not over SSH"
    return judged(said == wanted, f"{said or 'no answer'}; this run is {where}", seen)


def _console(bench: Bench) -> Verdict:
    asked = bench.call(("/bin/sh", "-c", f"echo show State:/Users/ConsoleUser | {_SCUTIL}"))
    found = re.search(r"^\s*Name : (.+)$", asked.output, re.MULTILINE)
    by_scutil = found[1].strip() if found else ""
    by_scutil = "" if by_scutil == "loginwindow" or by_scutil.startswith("_") else by_scutil
    by_device = account.console_user()
    who = "nobody" if not by_scutil else "this user" if by_scutil == account.name_of(os.getuid()) else "another user"
    same = "is the same" if by_scutil == by_device else "is another one"
    return judged(by_scutil == by_device, f"at the screen by scutil: {who}; the owner of /dev/console {same}", asked)


def _enrolment(bench: Bench) -> Verdict:
    seen = bench.call((f"{_PROGRAMS}/profiles", "status", "-type", "enrollment"))
    lines = dict(line.split(": ", 1) for line in seen.output.splitlines() if ": " in line)
    said = {name: value.strip() for name, value in lines.items() if "enroll" in name.lower()}
    reason = "; ".join(f"{name.strip()}: {value}" for name, value in said.items()) or "no answer that is understood"
    return judged(seen.code == 0 and bool(said), reason, seen)


def _own_processes(bench: Bench) -> Verdict:
    """Of a program that is none of macOS itself, as a release is: those hide their environment."""
    argv = [sys.executable, "-I", "-c", "import time; time.sleep(60)"]
    with psutil.Popen(argv, env={"FIRSTRUN": "seen"}, cwd=bench.folder, start_new_session=True) as child:
        try:
            deadline = Deadline(_SEEN_S)
            while not child.cmdline()[1:] and not deadline.passed:
                time.sleep(0.01)  # it is being started
            seen = {
                "program": child.exe(),
                "arguments": child.cmdline()[1:],
                "environment": child.environ().get("FIRSTRUN"),
                "folder": child.cwd(),
            }
        except psutil.Error as error:
            return judged(False, f"psutil: {type(error).__name__}")
        finally:
            _end(child)
    hidden = [name for name, value in seen.items() if not value]
    return judged(not hidden, f"hidden: {', '.join(hidden)}" if hidden else f"seen: {', '.join(seen)}")


def _end(child: psutil.Popen) -> None:
    for one in [*child.children(recursive=True), child]:
        one.kill()
    child.wait(10)


def _listener(_bench: Bench) -> Verdict:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = listeners(port, "127.0.0.1")
    return judged(found == (os.getpid(),), f"this run listens, and is found: {found == (os.getpid(),)}")


def _wildcard(_bench: Bench) -> Verdict:
    with socket.socket() as everywhere, socket.socket() as here:
        everywhere.bind(("0.0.0.0", 0))  # noqa: S104  closed at once
        everywhere.listen()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind(("127.0.0.1", everywhere.getsockname()[1]))
        except OSError as error:
            return judged(False, f"bind to 127.0.0.1: {error.strerror}")
    return confirmed("bind to 127.0.0.1 beside a listener on 0.0.0.0 succeeds")


def _sysctl(bench: Bench, *names: str) -> Evidence:
    return bench.call((_SYSCTL, *names))


def _ssh() -> bool:
    return bool(os.environ.get("SSH_CONNECTION"))


_assumption = partial(assumed, "machine")

PROBES = (
    Probe(_assumption("system", "sw_vers names product, version and build.", "Run it.", MACOS), _system),
    Probe(
        _assumption(
            "chip", "sysctl names the memory, and an Apple chip of which we know the GPU family.", "Run it.", MACOS
        ),
        _chip,
    ),
    Probe(
        _assumption(
            "native",
            "The toolkit's Python runs natively on arm64, not under Rosetta.",
            "sysctl.proc_translated.",
            MACOS,
        ),
        _native,
    ),
    Probe(
        _assumption(
            "tools",
            "Xcode's command line tools are there, and their licence was agreed to.",
            "xcode-select -p, then xcrun clang --version; no stub is run.",
            MACOS,
        ),
        _tools,
    ),
    Probe(
        _assumption(
            "metal-device",
            "MTLCreateSystemDefaultDevice gives a device in this session.",
            "Compile a program of a few lines, and run it.",
            MACOS,
        ),
        _metal,
    ),
    Probe(
        _assumption(
            "gpu-family", "The GPU family of our table is the newest that Metal reports.", "supportsFamily.", MACOS
        ),
        _families,
    ),
    Probe(
        _assumption(
            "metal-limit",
            "Metal may use what published logs of Macs of this size say, or iogpu.wired_limit_mb; the planner is told.",
            "Compare with recommendedMaxWorkingSetSize, by a program and by the planner's own question.",
            MACOS,
        ),
        _limit,
    ),
    Probe(_assumption("wired-limit", "sysctl knows iogpu.wired_limit_mb.", "Run it.", MACOS), _wired),
    Probe(
        _assumption(
            "session",
            "`launchctl managername` says Aqua at the screen, Background over SSH, and System for root.",
            "Compare with SSH_CONNECTION and the uid.",
        ),
        _session,
    ),
    Probe(
        _assumption(
            "console-user",
            "The owner of /dev/console is the user that scutil names at the screen.",
            "show State:/Users/ConsoleUser.",
            MACOS,
        ),
        _console,
    ),
    Probe(
        _assumption("enrolment", "`profiles status` tells without root whether the Mac is managed.", "Run it.", MACOS),
        _enrolment,
    ),
    Probe(
        _assumption(
            "own-processes",
            "psutil sees program, folder and environment of this user's processes.",
            "Start a Python and look.",
        ),
        _own_processes,
    ),
    Probe(
        _assumption("listener", "The process that listens on a port is found.", "Listen and look."),
        _listener,
    ),
    Probe(
        _assumption(
            "bind-beside-wildcard",
            "A server on 127.0.0.1 can bind a port on which another one listens on 0.0.0.0.",
            "Do both.",
            MACOS,
        ),
        _wildcard,
    ),
)

MACHINE = probed("machine", *PROBES)
