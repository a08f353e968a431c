"""What Munki, Jamf Pro and Kandji do with the scripts that they are given, modelled by their documentation and source.

Munki 7, as its updatecheck/installationstate.swift and installer/installer.swift have it: `installcheck_script` ends
with 0, so the item is not installed; any other end, also a crash, is taken for installed. For an item of type nopkg it
then runs `preinstall_script`, and a failure is the item's. A failing `postinstall_script` would only be a warning.
To remove, it asks `uninstallcheck_script` (0: is installed), then runs `uninstall_script`. Scripts are written to a
temporary file and executed without arguments. Not modelled: catalogs, versions, dependencies, blocking applications.

Jamf Pro: a policy's script gets mount point, computer name, user name and the parameters 4 to 11; another end than 0
fails the policy. An extension attribute is what stands between <result> and </result>; Jamf ignores its exit code.

Kandji: the audit script ends with 0: compliant. Else the remediation script runs; ends that with another code than 0,
there is an alert. Both agents run as root, and so do these as whoever runs the tests.
"""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """A script's end."""

    code: int
    out: str
    err: str


def run_script(text: bytes | str, *arguments: str, name: str = "script", env: Mapping[str, str] | None = None) -> Done:
    """A script out of a temporary file, by its first line, with the environment of launchd's children."""
    with tempfile.TemporaryDirectory(prefix="turboquant-test-") as folder:
        file = Path(folder) / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o755)
        return execute(file, *arguments, env={"TMPDIR": folder, **(env or {})})


def execute(file: Path, *arguments: str, env: Mapping[str, str]) -> Done:
    """A script that lies somewhere."""
    given = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **env}
    kept = {name: value for name, value in os.environ.items() if name.startswith("TURBOQUANT_")}
    done = subprocess.run(
        [file, *arguments], capture_output=True, text=True, env={**kept, **given}, stdin=subprocess.DEVNULL, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def munki(pkginfo: bytes) -> str:
    """A run of managedsoftwareupdate for an item in managed_installs."""
    item = plistlib.loads(pkginfo)
    if run_script(item["installcheck_script"]).code != 0:
        return "installed"
    code = run_script(item["preinstall_script"]).code if "preinstall_script" in item else 0
    if code != 0:
        return f"install FAILED with {code}"
    if "postinstall_script" in item and run_script(item["postinstall_script"]).code != 0:
        return "installed, with a warning"
    return "install succeeded"


def munki_removal(pkginfo: bytes) -> str:
    """The same for an item in managed_uninstalls."""
    item = plistlib.loads(pkginfo)
    if run_script(item["uninstallcheck_script"]).code != 0:
        return "not installed"
    code = run_script(item["uninstall_script"]).code
    return "removal succeeded" if code == 0 else f"removal FAILED with {code}"


def jamf(script: bytes, *parameters: str) -> str:
    """A policy with this script."""
    done = run_script(script, "/", "mac1", "alice", *parameters)
    return "completed" if done.code == 0 else f"FAILED with {done.code}"


def jamf_attribute(script: bytes) -> str:
    """What Jamf stores; empty without a result."""
    found = re.search(r"<result>(.*)</result>", run_script(script).out, re.DOTALL)
    return found[1] if found else ""


def kandji(audit: bytes, remediation: bytes) -> str:
    """A run of a custom script item."""
    if run_script(audit).code == 0:
        return "compliant"
    code = run_script(remediation).code
    return "remediated" if code == 0 else f"ALERT, remediation ended with {code}"
