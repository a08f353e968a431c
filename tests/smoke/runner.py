"""Runs a workflow of GitHub Actions on this machine: its `run` steps as they are, in the order of its jobs.

Modelled: `needs`, `if` and matrices of jobs; `if`, `env`, `name` and `run` of steps; env of workflow, job and step; the
files behind $GITHUB_ENV, $GITHUB_OUTPUT and $GITHUB_PATH; bash as a step's shell. A job begins in a clone of the
checkout, in a folder of its own. Of `uses`:

    actions/checkout            the clone
    actions/setup-python        nothing: the present Python
    actions/upload-artifact     copies the files of one pattern into a folder for its name
    actions/download-artifact   copies them back, merged
    actions/cache               nothing: never a hit

./inv is replaced by the tasks of the clone in the present environment; tests/tasks/test_inv.py tests how it makes one.
Where it may differ from GitHub: a leg of a matrix for another system is left out; jobs run one after another; secrets
are not masked; environments ask nobody; `permissions` and `concurrency` have no effect. What is not modelled is an
error, never left out silently.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolchain.core.checkout import ROOT

from .expressions import condition, filled, shown

_JOB_KEYS = {
    "if",
    "needs",
    "strategy",
    "runs-on",
    "timeout-minutes",
    "environment",
    "permissions",
    "env",
    "steps",
    "name",
}
_STEP_KEYS = {"if", "name", "id", "env", "run", "uses", "with", "shell"}
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "TERM")


@dataclass
class Step:
    """A step that was reached."""

    job: str
    name: str
    state: str
    """ok, failed, skipped, or modelled"""
    seconds: float = 0.0
    output: str = ""
    code: int = 0


@dataclass
class Job:
    """A job that ran, with one leg of its matrix."""

    name: str
    folder: Path
    ok: bool = True
    steps: list[Step] = field(default_factory=list)


class NotModelled(Exception):
    """The workflow uses something that this runner does not know."""


class Runner:
    """One run of a workflow. `github`, `inputs`, `vars` and `secrets` are contexts; `environ` is added to each step."""

    def __init__(
        self,
        workflow: Path,
        folder: Path,
        *,
        github: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        vars: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        verbose: bool = False,
    ) -> None:
        self.workflow: dict[Any, Any] = yaml.safe_load(workflow.read_text(encoding="utf-8"))
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.environ = dict(environ or {})
        self.jobs: list[Job] = []
        self._contexts: dict[str, Any] = {
            "github": {"workspace": "", "api_url": "https://api.github.com", **github},
            "inputs": dict(inputs or {}),
            "vars": dict(vars or {}),
            "secrets": dict(secrets or {}),
        }
        self._results: dict[str, str] = {}
        self._verbose = verbose

    def run(self, *only: str) -> list[Job]:
        """Run the jobs, or only those named, and what they need does not matter then."""
        for name, job in self.workflow["jobs"].items():
            if only and name not in only:
                continue
            self._known(job, _JOB_KEYS, f"job {name}")
            needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            before = [self._results.get(one, "success" if only else "skipped") for one in needs]
            status = _status(all(one == "success" for one in before), any(one == "failure" for one in before))
            contexts = {**self._contexts, "needs": {one: {"result": self._results.get(one)} for one in needs}}
            if not condition(str(job.get("if", "")), contexts, status):
                self._results[name] = "skipped"
                continue
            legs = [self._job(name, job, leg) for leg in _legs(job)]
            ran = [leg for leg in legs if leg is not None]
            self._results[name] = "success" if all(leg.ok for leg in ran) else "failure"
            self.jobs += ran
        return self.jobs

    @property
    def results(self) -> Mapping[str, str]:
        """How each job ended: success, failure or skipped."""
        return self._results

    def _job(self, name: str, job: Mapping[str, Any], leg: Mapping[str, Any]) -> Job | None:
        contexts = {**self._contexts, "matrix": leg}
        machine = filled(job["runs-on"], contexts)
        if not machine.startswith("ubuntu"):
            return None
        label = "-".join([name, *map(str, leg.values())])
        made = Job(name=name, folder=self.folder / "jobs" / label)
        temporary = made.folder.parent / f"{label}.temp"
        temporary.mkdir(parents=True)
        contexts |= {
            "runner": {"os": "Linux", "arch": "X64", "temp": str(temporary)},
            "github": {**contexts["github"], "workspace": str(made.folder)},
        }
        env = self._filled(self.workflow.get("env"), contexts)
        env |= self._filled(job.get("env"), {**contexts, "env": env})
        outputs: dict[str, Any] = {}
        for number, step in enumerate(job["steps"]):
            self._known(step, _STEP_KEYS, f"a step of job {name}")
            known = {**contexts, "env": env, "steps": outputs}
            own = {**env, **self._filled(step.get("env"), known)}
            one = Step(job=label, name=step.get("name") or step.get("uses") or f"step {number}", state="skipped")
            made.steps.append(one)
            if not condition(str(step.get("if", "")), {**known, "env": own}, _status(made.ok, not made.ok)):
                continue
            started = time.monotonic()
            if "uses" in step:
                self._action(step, made.folder, known)
                one.state = "modelled"
            else:
                written = self._script(step, made.folder, temporary, own, one)
                env |= written.pop("GITHUB_ENV")
                outputs[step.get("id", "")] = {"outputs": written.pop("GITHUB_OUTPUT")}
            one.seconds = round(time.monotonic() - started, 2)
            made.ok = made.ok and one.state != "failed"
            if self._verbose:
                said = f"\n{one.output}" if one.state == "failed" else ""
                sys.stdout.write(f"{one.state:9}{one.seconds:7.1f} s  {label}: {one.name}{said}\n")
                sys.stdout.flush()
        return made

    def _script(
        self, step: Mapping[str, Any], folder: Path, temporary: Path, env: Mapping[str, str], made: Step
    ) -> dict[str, dict[str, str]]:
        """Run a step's script as GitHub does, and return what it wrote into the files behind variables."""
        if "${{" in step["run"]:
            raise NotModelled(f"{made.name}: an expression inside run")
        if step.get("shell", self.workflow.get("defaults", {}).get("run", {}).get("shell", "bash")) != "bash":
            raise NotModelled(f"{made.name}: a shell other than bash")
        files = {name: temporary / name for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH")}
        for file in files.values():
            file.write_text("")
        script = temporary / "step.sh"
        script.write_text(step["run"])
        github = self._contexts["github"]
        known = {f"GITHUB_{name.upper()}": shown(value) for name, value in github.items() if isinstance(value, str)}
        environ = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **known,
            **{name: str(file) for name, file in files.items()},
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(folder),
            "RUNNER_TEMP": str(temporary),
            "RUNNER_OS": "Linux",
            **env,
            **self.environ,
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        made.output, made.code = done.stdout, done.returncode
        made.state = "failed" if done.returncode else "ok"
        if files.pop("GITHUB_PATH").read_text():
            raise NotModelled(f"{made.name}: GITHUB_PATH")
        return {name: _pairs(file.read_text()) for name, file in files.items()}

    def _action(self, step: Mapping[str, Any], folder: Path, contexts: Mapping[str, Any]) -> None:
        inputs = {key: filled(shown(value), contexts) for key, value in step.get("with", {}).items()}
        match step["uses"].partition("@")[0]:
            case "actions/checkout":
                clone(folder)
            case "actions/setup-python" | "actions/cache":
                pass
            case "actions/upload-artifact":
                found = sorted(folder.glob(inputs["path"]))
                if not found:
                    raise FileNotFoundError(f"no file for {inputs['path']}")
                target = self.artifacts / inputs["name"]
                target.mkdir(parents=True)
                for path in found:
                    shutil.copy(path, target)
            case "actions/download-artifact":
                if inputs.get("merge-multiple") != "true":
                    raise NotModelled("actions/download-artifact without merge-multiple")
                (folder / inputs["path"]).mkdir(parents=True)
                for artifact in sorted(self.artifacts.glob(inputs["pattern"])):
                    shutil.copytree(artifact, folder / inputs["path"], dirs_exist_ok=True)
            case other:
                raise NotModelled(f"the action {other}")

    def _filled(self, env: Mapping[str, Any] | None, contexts: Mapping[str, Any]) -> dict[str, str]:
        return {name: filled(shown(value), contexts) for name, value in (env or {}).items()}

    def _known(self, mapping: Mapping[str, Any], keys: set[str], what: str) -> None:
        if unknown := set(mapping) - keys:
            raise NotModelled(f"{what}: {', '.join(sorted(unknown))}")


def clone(folder: Path) -> None:
    """The checkout's HEAD with what is changed or new in the work tree, and ./inv for the present environment."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, folder], **quiet)  # type: ignore[call-overload]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "inv").write_text(
        "#!/bin/sh\n"
        'PYTHONPATH=$(cd "$(dirname "$0")" && pwd)\n'
        f'PATH="{Path(sys.executable).parent}:$PATH"\n'
        "export PYTHONPATH PATH\n"
        f'exec "{sys.executable}" -P -c \'import tasks; tasks.start()\' "$@"\n'
    )


def _legs(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    matrix = job.get("strategy", {}).get("matrix", {})
    if {"include", "exclude"} & set(matrix):
        raise NotModelled("include or exclude of a matrix")
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def _pairs(text: str) -> dict[str, str]:
    """NAME=VALUE lines. Values of several lines are not modelled."""
    pairs = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if not separator or "<<" in name:
            raise NotModelled(f"a value of several lines: {line}")
        pairs[name] = value
    return pairs


def _status(success: bool, failure: bool) -> dict[str, bool]:
    return {"success": success, "failure": failure, "always": True, "cancelled": False}
