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

import plistlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """A script's end."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Machine:
    """Where the tools run their scripts: `environment` is added to that of launchd's children."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, text: bytes | str, *arguments: str) -> Done:
        """A script out of a temporary file, by its first line."""
        with tempfile.TemporaryDirectory(prefix="turboquant-test-") as folder:
            file = Path(folder) / "script"
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            file.chmod(0o755)
            done = self.execute(file, *arguments, TMPDIR=folder)
            assert [path.name for path in Path(folder).iterdir()] == ["script"]  # it leaves nothing behind
            return done

    def execute(self, file: Path, *arguments: str, **further: str) -> Done:
        """A script that lies somewhere."""
        done = subprocess.run(
            [file, *arguments],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **self.environment, **further},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def munki(self, pkginfo: bytes) -> str:
        """A run of managedsoftwareupdate for an item in managed_installs."""
        item = plistlib.loads(pkginfo)
        if self.run(item["installcheck_script"]).code != 0:
            return "installed"
        code = self.run(item["preinstall_script"]).code if "preinstall_script" in item else 0
        if code != 0:
            return f"install FAILED with {code}"
        if "postinstall_script" in item and self.run(item["postinstall_script"]).code != 0:
            return "installed, with a warning"
        return "install succeeded"

    def munki_removal(self, pkginfo: bytes) -> str:
        """The same for an item in managed_uninstalls."""
        item = plistlib.loads(pkginfo)
        if self.run(item["uninstallcheck_script"]).code != 0:
            return "not installed"
        code = self.run(item["uninstall_script"]).code
        return "removal succeeded" if code == 0 else f"removal FAILED with {code}"

    def jamf(self, script: bytes, *parameters: str) -> str:
        """A policy with this script."""
        done = self.run(script, "/", "mac1", "alice", *parameters)
        return "completed" if done.code == 0 else f"FAILED with {done.code}"

    def jamf_attribute(self, script: bytes) -> str:
        """What Jamf stores; empty without a result."""
        found = re.search(r"<result>(.*)</result>", self.run(script).out, re.DOTALL)
        return found[1] if found else ""

    def kandji(self, audit: bytes, remediation: bytes) -> str:
        """A run of a custom script item."""
        if self.run(audit).code == 0:
            return "compliant"
        code = self.run(remediation).code
        return "remediated" if code == 0 else f"ALERT, remediation ended with {code}"

    def observe(self, tool: str, scripts: Mapping[str, bytes]) -> str:
        """One run of a tool, or its look: munki, jamf, kandji, attribute."""
        match tool:
            case "munki":
                return self.munki(next(data for path, data in scripts.items() if path.startswith("munki/")))
            case "jamf":
                return self.jamf(scripts["jamf/policy.sh"])
            case "kandji":
                return self.kandji(scripts["kandji/audit.sh"], scripts["kandji/remediation.sh"])
        return self.jamf_attribute(scripts["jamf/attribute.sh"])
