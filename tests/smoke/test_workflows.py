"""The workflows: their commands are tasks with these flags, and their light steps run."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from toolchain.core.checkout import ROOT

from .expressions import condition, evaluate, filled
from .runner import NotModelled, Runner

WORKFLOWS = (*sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / "templates/watch.yml")
RELEASE = ROOT / ".github/workflows/release.yml"
_COMMAND = re.compile(r"\./inv ((?:\\\n|[^\n;|&>)])*)")


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


def commands() -> Iterator[tuple[str, list[str]]]:
    for workflow in WORKFLOWS:
        for step in steps(workflow):
            for match in _COMMAND.finditer(step.get("run", "")):
                yield workflow.name, shlex.split(match[1].replace("\\\n", " "))


def parsed(words: list[str]) -> None:
    copied = copy.deepcopy(tasks.namespace())  # Invoke takes the help texts out of it
    Parser(contexts=copied.to_contexts()).parse_argv(words)


@pytest.mark.parametrize(
    ("workflow", "words"), [pytest.param(*one, id=f"{one[0]}: {' '.join(one[1])}") for one in commands()]
)
def test_a_command_is_a_task_with_these_flags(workflow: str, words: list[str]) -> None:
    parsed(words)


@pytest.mark.parametrize(
    "words", ["release.no-such-task --json", "check --no-such-flag", "rehearse --keep a b"],
)  # fmt: skip
def test_what_is_no_command_is_noticed(words: str) -> None:
    with pytest.raises(ParseError):
        parsed(words.split())


@pytest.mark.parametrize(
    ("github", "inputs", "jobs"),
    [
        ({"event_name": "workflow_dispatch"}, {"do": "release"}, ["smoke"]),
        ({"event_name": "workflow_dispatch"}, {"do": "promote"}, ["promote"]),
        ({"event_name": "workflow_dispatch"}, {"do": "refresh"}, ["refresh"]),
        ({"event_name": "schedule", "event": {"schedule": "17 3 * * *"}}, {}, ["timestamp"]),
        ({"event_name": "schedule", "event": {"schedule": "41 4 * * 1"}}, {}, ["refresh"]),
        ({"event_name": "schedule", "event": {"schedule": "0 0 * * *"}}, {}, []),
    ],
)
def test_each_event_starts_its_job_and_no_other(
    github: dict[str, Any], inputs: dict[str, str], jobs: list[str]
) -> None:
    workflow = yaml.safe_load(RELEASE.read_text())
    contexts = {"github": github, "inputs": inputs, "vars": {"PUBLICATION": "host:folder"}}
    fine = {"success": True, "failure": False, "always": True, "cancelled": False}
    first = {name: job for name, job in workflow["jobs"].items() if "needs" not in job}
    assert [name for name, job in first.items() if condition(job["if"], contexts, fine)] == jobs
    assert {one["cron"] for one in workflow[True]["schedule"]} == {"17 3 * * *", "41 4 * * 1"}
    assert workflow[True]["workflow_dispatch"]["inputs"]["do"]["options"] == ["release", "promote", "refresh"]


def test_each_step_of_a_workflow_with_a_script_has_a_name() -> None:
    assert [step for step in steps(RELEASE) if "run" in step and "name" not in step] == []


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """The variables and keys of a publication in a folder."""
    (tmp_path / "publication/channels").mkdir(parents=True)
    (tmp_path / "publication/channels/beta.json").write_text("{}\n")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, stdin=subprocess.DEVNULL
    )
    return {
        "PUBLICATION": str(tmp_path / "publication"),
        "SIGNERS": 'publisher namespaces="turboquant-release" ssh-ed25519 AAAA',
        "SIGNING_KEY": (tmp_path / "key").read_text().rstrip("\n"),
    }


def promote(tmp_path: Path, site: dict[str, str], **github: str) -> Runner:
    return Runner(
        RELEASE, tmp_path / "run",
        github={"event_name": "workflow_dispatch", "event": {}, **github}, inputs={"do": "promote"},
        vars=site, secrets=site,
    )  # fmt: skip


needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is missing")


@pytest.mark.slow
@needs_rsync
def test_keys_are_written_used_and_forgotten(tmp_path: Path, site: dict[str, str]) -> None:
    """The job up to the task, which there cannot be without a release."""
    runner = promote(tmp_path, site)
    (job,) = runner.run()
    states = {step.name: step.state for step in job.steps}
    assert {"keys": "ok", "fetch the publication": "ok", "promote": "failed"}.items() <= states.items()
    assert {"store the publication": "skipped", "forget the keys": "ok"}.items() <= states.items()
    assert runner.results == {**dict.fromkeys(runner.workflow["jobs"], "skipped"), "promote": "failure"}
    assert (job.folder / "workspace/publication/channels/beta.json").read_text() == "{}\n"
    temporary = job.folder.parent / "promote.temp"
    assert not (temporary / "keys").exists()


def publication(tmp_path: Path, verb: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "temp").mkdir(exist_ok=True)
    known = {"PATH": "/usr/bin:/bin", "RUNNER_TEMP": f"{tmp_path}/temp", "GITHUB_ENV": f"{tmp_path}/env"}
    return subprocess.run(
        [ROOT / ".github/publication", verb], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**known, "TURBOQUANT_WORKSPACE": "workspace", **environ},
    )  # fmt: skip


def test_keys_are_named_in_settings_and_readable_by_their_owner_alone(tmp_path: Path, site: dict[str, str]) -> None:
    (tmp_path / "tuf").mkdir()
    (tmp_path / "tuf/timestamp.pem").write_text("key\n")
    packed = subprocess.run(["tar", "-czf", "-", "-C", tmp_path / "tuf", "."], capture_output=True, check=True).stdout
    coded = subprocess.run(["base64"], input=packed, capture_output=True, check=True).stdout.decode()
    done = publication(tmp_path, "keys", **site, TUF_KEYS=coded, REVOKED_KEYS="ssh-ed25519 AAAA")
    assert done.returncode == 0, done
    settings = dict(line.split("=") for line in (tmp_path / "env").read_text().splitlines())
    assert {name.removeprefix("TURBOQUANT_PUBLISH_"): Path(path).name for name, path in settings.items()} == {
        "SIGNERS": "allowed_signers", "REVOKED": "revoked_keys", "KEY": "signing", "TUF_KEYS": "tuf",
    }  # fmt: skip
    assert (tmp_path / "temp/keys/tuf/timestamp.pem").read_text() == "key\n"
    public = (tmp_path / "key.pub").read_text().split()[:2]
    assert (tmp_path / "temp/keys/signing.pub").read_text().split()[:2] == public
    assert [path for path in (tmp_path / "temp").rglob("*") if path.stat().st_mode & 0o077] == []
    assert site["SIGNING_KEY"] not in done.stdout + done.stderr


def test_a_certificate_is_written(tmp_path: Path) -> None:
    done = publication(tmp_path, "certificate", CERTIFICATE="cDEy", CERTIFICATE_PASSWORD="a", NOTARY_KEY="k")
    assert done.returncode == 0, done
    keys = tmp_path / "temp/keys"
    written = {path.name: path.read_text() for path in keys.iterdir()}
    assert written == {"certificate.p12": "p12", "certificate.password": "a\n", "notary.p8": "k\n"}
    names = [line.split("=")[0].removeprefix("TURBOQUANT_PUBLISH_") for line in (tmp_path / "env").read_text().split()]
    assert names == ["CERTIFICATE", "CERTIFICATE_PASSWORD_FILE", "NOTARY_KEY"]


@pytest.mark.parametrize(
    ("verb", "environ", "said"),
    [
        ("keys", {"SIGNING_KEY": "no key"}, "SIGNING_KEY is no private SSH key"),
        ("keys", {"TUF_KEYS": "no archive"}, "TUF_KEYS is no folder of keys"),
        ("keys", {"PUBLICATION_KEY": "key"}, "the line of known_hosts for the server"),
        ("certificate", {"CERTIFICATE": "%", "CERTIFICATE_PASSWORD": "a"}, "CERTIFICATE is not base64"),
        ("certificate", {}, "a .p12 file in base64"),
        ("fetch", {}, "HOST:FOLDER of the publication"),
        ("", {}, "usage: "),
    ],
)
def test_what_is_missing_or_malformed_is_named(tmp_path: Path, verb: str, environ: dict[str, str], said: str) -> None:
    done = publication(tmp_path, verb, **environ)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


@needs_rsync
def test_an_empty_publication_is_refused_unless_it_is_new(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    done = publication(tmp_path, "fetch", PUBLICATION=f"{tmp_path}/far")
    assert done.returncode == 1
    assert "has no channel: is it the right folder?" in done.stdout
    assert publication(tmp_path, "fetch", PUBLICATION=f"{tmp_path}/far", PUBLICATION_NEW="yes").returncode == 0
    gone = publication(tmp_path, "fetch", PUBLICATION=f"{tmp_path}/gone", PUBLICATION_NEW="yes")
    assert gone.returncode != 0


@needs_rsync
def test_a_publication_is_stored_without_what_belongs_to_one_machine(tmp_path: Path) -> None:
    own = tmp_path / "workspace/publication"
    names = ["releases/a/release.json", "statements/2/beta.json", "tuf/metadata/timestamp.json", "tuf/1.root.json"]
    for name in [*names, ".lock", ".making/x/half"]:
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(f"{name}\n")
    (own / "channels").symlink_to("statements/2")
    far = tmp_path / "far"
    (far / "releases/b").mkdir(parents=True)
    (far / "channels").symlink_to("statements/1")
    (far / "releases/b/release.json").write_text("b\n")
    done = publication(tmp_path, "store", PUBLICATION=str(far))
    assert done.returncode == 0, done
    stored = sorted(path.relative_to(far).as_posix() for path in far.rglob("*") if path.is_file())
    assert stored == sorted([*names, "releases/b/release.json"])
    assert (far / "channels").readlink() == Path("statements/2")
    assert (far / "channels/beta.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("vars.A || 'b'", "a"),
        ("vars.B || 'b'", "b"),
        ("vars.A == 'A' && !vars.B", True),
        ("(vars.B || vars.A) != 'a'", False),
        ("vars.deep.er", None),
        ("vars.A == 'it''s'", False),
        ("1 == 1", True),
    ],
)
def test_expressions(expression: str, value: object) -> None:
    assert evaluate(expression, {"vars": {"A": "a", "B": ""}}) == value


def test_what_is_not_modelled_is_an_error() -> None:
    for expression in ("contains(vars.A, 'a')", "vars.A > 1", "vars['A']", "github.sha", "vars.A ||", "(1"):
        with pytest.raises(ValueError, match=r"not modelled|ends early|is open"):
            evaluate(expression, {"vars": {}})


def test_conditions_ask_for_success_unless_they_name_a_status() -> None:
    failed = {"success": False, "failure": True, "always": True, "cancelled": False}
    assert not condition("", {}, failed)
    assert not condition("1 == 1", {}, failed)
    assert condition("always()", {}, failed)
    assert condition("${{ failure() && 1 == 1 }}", {}, failed)
    assert filled("a ${{ vars.A }} b ${{ vars.B }}", {"vars": {"A": True}}) == "a true b "


def test_a_step_that_the_runner_does_not_know_is_an_error(tmp_path: Path) -> None:
    text = "jobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - {step}\n"
    for step in (
        "uses: other/action@main",
        "run: echo\n        continue-on-error: true",
        "run: echo ${{ github.sha }}",
    ):
        (tmp_path / "w.yml").write_text(text.replace("{step}", step))
        with pytest.raises(NotModelled):
            Runner(tmp_path / "w.yml", tmp_path / str(len(step)), github={}).run()


def test_steps_pass_on_what_they_write(tmp_path: Path) -> None:
    (tmp_path / "w.yml").write_text("""\
env: {A: top, B: top}
jobs:
  a:
    runs-on: ${{ matrix.runner }}
    strategy: {matrix: {runner: [macos-15, ubuntu-24.04]}}
    env: {B: job, C: "${{ env.A }}"}
    steps:
      - run: mkdir -p "$GITHUB_WORKSPACE"
      - id: first
        run: |
          echo "A=written" >>"$GITHUB_ENV"
          echo "key=value" >>"$GITHUB_OUTPUT"
      - run: echo "$A $B $C $D $RUNNER_OS"
        env: {D: "${{ steps.first.outputs.key }}"}
      - run: false | cat
      - run: echo never
      - if: failure()
        run: echo finally
""")
    folder = tmp_path / "run"
    (folder / "jobs/a-ubuntu-24.04").mkdir(parents=True)
    (job,) = Runner(tmp_path / "w.yml", folder, github={}).run()
    assert [step.state for step in job.steps] == ["ok", "ok", "ok", "failed", "skipped", "ok"]
    assert [job.steps[number].output for number in (2, 5)] == ["written job top value Linux\n", "finally\n"]
