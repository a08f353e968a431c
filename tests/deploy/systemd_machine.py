"""A real systemd as PID 1 of namespaces of its own, for as long as one command runs in there.

    python -m tests.deploy.systemd_machine FOLDER COMMAND...

Only root can make it, on Linux, with systemd installed and the unified cgroup hierarchy mounted. Nothing of this
machine can be changed from the inside: every mount is read-only but FOLDER and new temporary file systems for /run,
/tmp and the folders of units; processes, network, host name, System V objects and cgroups are its own. systemd knows no
unit of the distribution, so nothing is set up, cleaned or mounted at its start. It is killed with its first process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNITS = Path("/etc/systemd/system")
RUNTIME = Path("/run/user/0")
"""of root's own user manager, which runs in there, too"""
_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup")
_START_S = 20.0
_USER_MANAGER = f"""[Unit]
DefaultDependencies=no
[Service]
Type=notify
Delegate=yes
Environment=XDG_RUNTIME_DIR={RUNTIME} HOME=%s XDG_CONFIG_HOME=%s/.config
Environment=SYSTEMD_GENERATOR_PATH= SYSTEMD_ENVIRONMENT_GENERATOR_PATH=
Environment=SYSTEMD_UNIT_PATH=%s/.config/systemd/user:/run/user-targets
ExecStart={SYSTEMD} --user
"""

_FIRST = r"""
set -eu
folder=$1
grep -q ' / / .*shared' /proc/self/mountinfo && { echo "the mounts are shared" >&2; exit 1; }
mount -t tmpfs tmpfs /run
mkdir /run/keep
mount --bind "$folder" /run/keep
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p "$folder"
cut -d' ' -f5 /proc/self/mountinfo | while read -r at; do
    case $at in
        /proc | /run | /run/* | /tmp) ;;
        *) mount -o remount,bind,ro "$(printf '%b' "$at")" 2> /dev/null || : ;;
    esac
done
mount --move /run/keep "$folder"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /etc/systemd
mount -t tmpfs tmpfs /dev/shm
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for at in / /usr /etc /var /dev /home /root /work /sys /proc/sys; do
    [ ! -d "$at" ] || [ "$at" -ef "$folder" ] || [ ! -w "$at" ] || { echo "$at can be written" >&2; exit 1; }
done
mkdir -p /etc/systemd/system /etc/systemd/user /run/user/0 /run/user-targets /run/systemd
chmod 700 /run/user/0
for name in sysinit basic multi-user shutdown default; do
    for at in /run/user-targets /etc/systemd/system; do
        printf '[Unit]\nDefaultDependencies=no\n' > "$at/$name.target"
    done
done
printf '%s' "$2" > /etc/systemd/system/user-manager.service
exec env -i container=turboquant PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system \
    SYSTEMD_GENERATOR_PATH= SYSTEMD_ENVIRONMENT_GENERATOR_PATH= \
    "$3" --system --log-target=console --log-level=notice --show-status=no --default-standard-output=null
"""


def lacks() -> str:
    """Why there can be no such machine here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes root on Linux"
    for program in (SYSTEMD, "systemctl", "unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with tempfile.TemporaryDirectory() as folder, machine(Path(folder)):
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[tuple[str, ...]]:
    """Start it; gives the command that runs a command inside. Raises `OSError` when it does not come up."""
    home = folder / "home"
    (home / ".config/systemd/user").mkdir(parents=True, exist_ok=True)
    manager = _USER_MANAGER % ((str(home).replace("%", "%%"),) * 3)
    words = ["unshare", *_NAMESPACES, "--propagation", "private", "--mount-proc", "--fork", "--kill-child"]
    words += ["/bin/sh", "-c", _FIRST, "sh", str(folder), manager, str(SYSTEMD)]
    with _own_cgroup() as cgroup, tempfile.TemporaryFile() as said:
        words = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs"), *words]
        first = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            inside = _entered(first, home)
            if inside is None:
                said.seek(0)
                text = said.read().decode(errors="replace").strip()
                raise OSError(f"systemd does not come up as PID 1 of a namespace: {text[-500:]}")
            start = (*inside, "systemctl", "start", "user-manager")
            done = subprocess.run(start, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"the user's systemd does not start: {done.stderr}")
            yield inside
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)
            first.wait()


@contextlib.contextmanager
def _own_cgroup() -> Iterator[Path]:
    """A new cgroup, of which systemd sees nothing but what is below."""
    root = next((path for path in _CGROUPS if (path / "cgroup.controllers").is_file()), None)
    if root is None:
        raise OSError("the unified cgroup hierarchy is not mounted")
    made = root / f"turboquant-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir()
    try:
        yield made
    finally:
        deadline = time.monotonic() + _START_S
        while made.is_dir() and time.monotonic() < deadline:  # what was killed may still be in there
            for path in sorted(made.rglob("*/"), key=lambda one: -len(one.parts)):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                made.rmdir()
            time.sleep(0.02)


def _entered(first: subprocess.Popen[bytes], home: Path) -> tuple[str, ...] | None:
    """The command that runs another beside systemd, once that answers; None if it never does."""
    given = (f"XDG_RUNTIME_DIR={RUNTIME}", f"XDG_CONFIG_HOME={home}/.config")
    flags = ("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "env", "-u", "DBUS_SESSION_BUS_ADDRESS", *given)
    deadline = time.monotonic() + _START_S
    while first.poll() is None and time.monotonic() < deadline:
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        for child in children[:1]:
            enter = ("nsenter", "--target", child, *flags)
            show = (*enter, "systemctl", "show", "--property=SystemState")
            if subprocess.run(show, capture_output=True, check=False).returncode == 0:
                return enter
        time.sleep(0.05)
    return None


def main() -> int:
    """Run a command in there, with this working directory; its exit code."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with machine(folder) as inside:
        return subprocess.run((*inside, *sys.argv[2:]), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
