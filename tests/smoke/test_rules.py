"""The rules for workflows: a sound one passes, and each breach is found in its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolchain.core.checkout import ROOT
from toolchain.smoke import Fault, actionlint, tree, workflows

from .test_check import repository

SHA = "3d3c42e5aac5ba805825da76410c181273ba90b1"
SOUND = f"""\
name: sound
on:
  push:
permissions:
  contents: read
jobs:
  one:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@{SHA} # v7.0.1
        with:
          persist-credentials: false
      - env:
          TITLE: ${{{{ github.event.head_commit.message }}}}
          TOKEN: ${{{{ secrets.GITHUB_TOKEN }}}}
        run: |
          echo one
          echo "$TITLE"
  two:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    environment: release
    permissions:
      contents: write
    steps:
      - env:
          KEY: ${{{{ secrets.KEY }}}}
        run: echo "$KEY" >/dev/null
"""


def faults(folder: Path, text: str) -> list[tuple[int, str]]:
    (file,) = tree.files(repository(folder, {".github/workflows/a.yml": text}))
    assert workflows.is_workflow(file)
    return [(one.line, one.reason) for one in workflows.faults(file)]


def test_a_sound_workflow_passes(tmp_path: Path) -> None:
    assert faults(tmp_path, SOUND) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        (f"checkout@{SHA} # v7.0.1", "checkout@v7", 11, "uses: actions/checkout@v7 is not pinned"),
        (f"checkout@{SHA} # v7.0.1", f"checkout@{SHA[:12]} # v7.0.1", 11, "uses: actions/checkout@3d3c42e5aac5 is not"),
        (f"{SHA} # v7.0.1", SHA, 11, f"uses: actions/checkout@{SHA} has no comment with its version"),
        (f"{SHA} # v7.0.1", f"{SHA} # newest", 11, f"uses: actions/checkout@{SHA} has no comment with its version"),
        ("persist-credentials: false", "persist-credentials: true", 11, "actions/checkout leaves the token in .git"),
        ("        with:\n          persist-credentials: false\n", "", 11, "actions/checkout leaves the token"),
        ("permissions:\n  contents: read\njobs", "jobs", 1, "no permissions: at the top"),
        ("  contents: read\njobs", "  contents: write\njobs", 5, "permissions: contents is more than read"),
        ("permissions:\n  contents: read\njobs", "permissions: write-all\njobs", 4, "permissions: write-all"),
        ("  push:", "  pull_request_target:", 3, "on: pull_request_target runs code of strangers"),
        ("on:\n  push:", "on: [push, pull_request_target]", 2, "on: pull_request_target runs code of strangers"),
        ("on:\n  push:", "on: workflow_run", 2, "on: workflow_run runs code of strangers"),
        ('          echo "$TITLE"', "          echo ${{ github.event.head_commit.message }}", 19, "${{ }} inside run:"),
        ("run: echo", "run: echo ${{ inputs.name }}", 29, "${{ }} inside run:"),
        ("    timeout-minutes: 5\n    steps", "    steps", 8, "job one: no timeout-minutes"),
        ("secrets.GITHUB_TOKEN", "secrets.KEY", 16, "a secret in job one, which has no protected environment: KEY"),
        ("secrets.GITHUB_TOKEN", "secrets['KEY']", 16, "a secret in job one"),
        ("secrets.GITHUB_TOKEN", "toJSON(secrets)", 16, "a secret in job one"),
        ("    environment: release\n", "", 27, "a secret in job two, which has no protected environment: KEY"),
        ("jobs:\n", "env:\n  A: ${{ secrets.KEY }}\njobs:\n", 7, "a secret outside of a job: KEY"),
        (
            "jobs:\n", "jobs:\n  call:\n    uses: a/b/.github/workflows/c.yml@main\n    secrets: inherit\n", 9,
            "job call: secrets: inherit",
        ),
        ("jobs:\n", "jobs:\n  call:\n    uses: a/b/.github/workflows/c.yml@main\n", 8, "uses: a/b/.github"),
    ],
)  # fmt: skip
def test_a_breach_is_found_in_its_line(tmp_path: Path, old: str, new: str, line: int, reason: str) -> None:
    assert old in SOUND
    found = faults(tmp_path, SOUND.replace(old, new, 1))
    assert (line, True) in [(number, text.startswith(reason)) for number, text in found], found
    assert len(found) <= 2


def test_what_looks_like_one_is_taken_for_a_workflow() -> None:
    names = [file.name for file in tree.files(ROOT) if workflows.is_workflow(file)]
    assert {".github/workflows/ci.yml", "templates/watch.yml"} <= {*names}
    assert "tests/cachetypes/turbo5.yaml" not in names


def test_actionlint_is_asked(tmp_path: Path) -> None:
    if not shutil.which("actionlint"):
        pytest.skip("actionlint is missing; .ci/run builds it")
    root = repository(tmp_path, {"w.yml": SOUND.replace("runs-on: ubuntu-24.04", "runs-on: ubuntu-24", 1)})
    (one,) = actionlint.faults(tree.files(root))
    assert isinstance(one, Fault)
    assert (one.path, one.line) == ("w.yml", 8)
    assert 'label "ubuntu-24" is unknown' in one.reason
