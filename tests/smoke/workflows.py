"""Every step of the release workflow, on the miniature and a forge of our own: `python -m tests.smoke.workflows`.

    smoke, build             do=release, on Linux
    publish                  with what build uploaded alone: its folder and the sources are gone, as on another machine
    publish                  again, as after a failure: nothing is published twice
    promote                  do=promote: stable is refused, since no Mac has proven the release; beta is granted
    refresh, timestamp       as their schedules start them

It takes some minutes. What is not executed here: legs of macOS runners, and the steps that need Apple or a Mac, which
`if` leaves out on Linux (notarize, rcodesign). The report says so for each step. Exit code 0: all is as expected.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.publishing.forge_server import REPOSITORY, WRITER, ForgeServer, serving
from toolchain.core.checkout import ROOT
from toolchain.rehearsal import miniature

from .runner import Job, Runner

RELEASE = ROOT / ".github/workflows/release.yml"
_SETTINGS = {
    "TURBOQUANT_SOURCES_OFFLINE": "1",
    "TURBOQUANT_BUILD_MIN_FREE_GB": "0.1",
}
"""for the miniature, which is small and local"""


class Site:
    """The folders, variables, secrets and forge of a repository whose workflow runs."""

    def __init__(self, folder: Path, forge: ForgeServer) -> None:
        self.folder = folder
        self.upstream = miniature.materialize(_made(folder / "upstream"))
        self.publication = _made(folder / "publication")
        self._runs = 0
        self._forge = forge
        task("release.keys", "--to", str(folder / "keys"), "--offline", str(folder / "offline"))
        key = folder / "statements"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        signers = (folder / "keys/allowed_signers").read_text()
        self.vars = {
            "OLLAMA": str(self.upstream.ollama),
            "LLAMA_CPP": str(self.upstream.llama_cpp),
            "PUBLICATION": str(self.publication),
            "PUBLICATION_NEW": "yes",
            "SIGNERS": f'{signers}publisher namespaces="turboquant-statement" {public}\n',
            "VERIFY_GPU": "skip",  # the miniature has no GPU
            "SIGNING": "self-signed",
        }
        self.secrets = {
            "SIGNING_KEY": (folder / "keys/signing").read_text(),
            "STATEMENT_KEY": key.read_text(),
            "TUF_KEYS": packed(folder / "keys/tuf"),
            "CERTIFICATE": base64.b64encode(b"a certificate; without Mach-O files nobody reads it").decode(),
            "CERTIFICATE_PASSWORD": "none",
        }

    def run(self, what: str, *only: str, inputs: Mapping[str, str] | None = None, **changed: Any) -> Runner:
        """Run the workflow, or only some of its jobs, as a dispatch with these inputs, or by a schedule."""
        self._runs += 1
        schedule = changed.pop("schedule", "")
        github = {
            "event_name": "schedule" if schedule else "workflow_dispatch",
            "event": {"schedule": schedule} if schedule else {},
            "api_url": self._forge.url,
            "repository": REPOSITORY,
            "sha": subprocess.run(
                ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
            ).stdout.strip(),
            "token": WRITER,
        }
        sys.stdout.write(f"== {what}\n")
        runner = Runner(
            RELEASE, _made(self.folder / f"run-{self._runs}"), github=github, inputs=inputs or {},
            vars={**self.vars, **changed.pop("vars", {})}, secrets={**self.secrets, **changed.pop("secrets", {})},
            environ=_SETTINGS, verbose=True,
        )  # fmt: skip
        runner.artifacts = changed.pop("artifacts", runner.artifacts)
        runner.run(*only)
        return runner


def main() -> None:
    """Run everything, and say what is not as expected."""
    executed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="turboquant-workflows-") as folder, serving() as forge:
        site = Site(Path(folder), forge)

        inputs = {"do": "release", "ollama_ref": "v0.33.0"}
        built = site.run("release", "smoke", "build", inputs=inputs)
        _expect(built, executed, smoke="success", build="success")
        shutil.rmtree(built.folder / "jobs")
        shutil.rmtree(site.folder / "upstream")
        first = site.run("publish", "publish", inputs=inputs, artifacts=built.artifacts)
        _expect(first, executed, publish="success")
        one = _channel(site, "linux-beta")["release"]
        site.vars["PUBLICATION_NEW"] = ""
        issued = _channel(site, "linux-beta")["sequence"]
        again = site.run("publish again", "publish", inputs=inputs, artifacts=built.artifacts)
        _expect(again, executed, publish="success")
        _require(_channel(site, "linux-beta")["sequence"] == issued + 1, "a new statement names the same release")

        refused = site.run("promote to stable", inputs={"do": "promote", "release": one, "channel": "stable"})
        _expect(refused, executed, promote="failure")
        _require(_step(refused, "promote", "promote").code == 35, "stable is refused with code 35")
        granted = site.run("promote to beta", inputs={"do": "promote", "release": one, "channel": "beta"})
        _expect(granted, executed, promote="success")

        before = _channel(site, "beta")["sequence"]
        _expect(site.run("refresh on Monday", schedule="41 4 * * 1"), executed, refresh="success")
        _require(_channel(site, "beta")["sequence"] == before + 1, "refresh issues a new statement")
        few = {"SIGNING_KEY": "", "TUF_KEYS": packed(site.folder / "keys/tuf", "snapshot.pem", "timestamp.pem")}
        _expect(site.run("timestamp at night", schedule="17 3 * * *", secrets=few), executed, timestamp="success")
        _require(_channel(site, "beta")["sequence"] == before + 1, "the timestamp leaves the statements")
        _require([release.tag_name for release in forge.public()] == [one], "the forge has the release once")
    sys.stdout.write("== not executed here\n")
    for name, state in executed.items():
        if state == "skipped":
            sys.stdout.write(f"{name}\n")


def packed(folder: Path, *names: str) -> str:
    """A folder of keys as the secret holds it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()):
            if not names or path.name in names or path.suffix == ".json":
                archive.add(path, path.name)
    return base64.b64encode(stream.getvalue()).decode()


def task(*words: str) -> None:
    """A task of this checkout."""
    code = "import tasks; tasks.start()"
    subprocess.run([sys.executable, "-P", "-c", code, *words], env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip


def _expect(runner: Runner, executed: dict[str, str], **results: str) -> None:
    for job in runner.jobs:
        for step in job.steps:
            name = f"{job.name}: {step.name}"
            if executed.get(name) not in ("ok", "failed"):
                executed[name] = step.state
    found = {name: result for name, result in runner.results.items() if result != "skipped"}
    _require(found == results, f"{found}" if found == results else f"{found}, where {results} is expected")


def _channel(site: Site, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.publication / f"channels/{name}.json").read_text())
    return found


def _step(runner: Runner, job: str, name: str) -> Any:
    found: list[Job] = [one for one in runner.jobs if one.name == job]
    return next(step for one in found for step in one.steps if step.name == name)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"not as expected: {what}")
    sys.stdout.write(f"as expected: {what}\n")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
