"""`./inv check` on repositories that hold one fault each, and on this one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.core.delivery_errors import ChecksFailed
from toolchain.core.errors import NotARepository
from toolchain.core.run import Run
from toolchain.smoke import Fault, FilesChecked, check
from toolchain.text import as_text


def repository(folder: Path, files: dict[str, str | bytes], *, git: bool = True) -> Path:
    """A repository with these files; those that begin with #! are executable."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
        if data.startswith(b"#!"):
            path.chmod(0o755)
    if git:
        run("git", "init", "--quiet", cwd=folder)
        run("git", "add", "--all", cwd=folder)
    return folder


def run(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **more}
    return subprocess.run(words, cwd=cwd, env=environ, check=True, capture_output=True, text=True)


def faults(folder: Path, files: dict[str, str | bytes]) -> list[tuple[str, int, str]]:
    found = check(Console(json=True), repository(folder, files))
    assert (found.failure() is None) == (found.findings == ())
    return [(one.path, one.line, one.reason) for one in found.findings]


SOUND: dict[str, str | bytes] = {
    "a.yaml": "a: [1, 2]\n",
    "a.json": '{"a": 1}\n',
    "a.toml": "a = 1\n",
    "a.py": "print(1)\n",
    "run": "#!/bin/sh\n[ -n \"$1\" ] || exit 1\n",
    "run.bash": "#!/usr/bin/env bash\nnames=(a b)\necho \"${names[@]}\"\n",
    "a.plist": '<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>a</string></dict></plist>\n',
    "a.sh.j2": "#!/bin/sh\n{% if a %}echo {{ a }}{% endif %}\n",
    "a.bin": b"\x00\r\n\xff",
    "page.md": "A heading\n=======\n",
}  # fmt: skip


def test_sound_files_pass(tmp_path: Path) -> None:
    assert faults(tmp_path, SOUND) == []


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("a.yaml", "a: 1\nb: [\n", 3, "does not parse: "),
        ("a.yml", "a: 1\nb: 2\na: 3\n", 3, "does not parse: the key 'a' occurs twice"),
        ("a.json", '{"a": 1,\n "b": }\n', 2, "does not parse: Expecting value"),
        ("a.toml", "a = 1\nb = = 2\n", 2, "does not parse: Invalid value"),
        ("a.py", "a = 1\nif a\n", 2, "does not parse: expected ':'"),
        ("a.py", 'a = 1\nb = "\\d"\n', 2, "does not parse: "),
        ("tool", "#!/usr/bin/env python3\nreturn 1\n", 2, "does not parse: 'return' outside function"),
        ("a.plist", "<plist version='1.0'>\n<dict></plist>\n", 2, "does not parse: mismatched tag"),
        ("a.mobileconfig", "no plist\n", 0, "does not parse: not a property list"),
        ("a.txt.j2", "a\n{% if a %}\n", 2, "does not parse: Unexpected end of template"),
        ("a.txt.j2", "a\n{{ a | shouted }}\n", 2, "does not parse: No filter named 'shouted'"),
        ("run", "#!/bin/sh\nif true; then\n", 3, "does not parse in sh: "),
        ("run", "#!/bin/bash\necho )\n", 2, "does not parse in bash: syntax error near unexpected token"),
        ("a.yaml", b"a: \xe4\n", 0, "a .yaml file that is not UTF-8 text"),
        ("a.txt", b"\xe4\n", 0, "neither binary nor UTF-8"),
        ("a.txt", "a\nb\r\nc\n", 2, "a carriage return"),
        ("a.txt", "a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n", 2, "a conflict marker of git: <<<<<<<"),
        ("a.dat", b"\0" * ((1 << 20) + 1), 0, "1048577 bytes; the limit is 1048576"),
    ],
)
def test_a_fault_is_found_in_its_line(tmp_path: Path, name: str, content: str | bytes, line: int, reason: str) -> None:
    found = faults(tmp_path, {**SOUND, name: content})
    mine = [one for one in found if one[2].startswith(reason)]
    assert [one[:2] for one in mine] == [(name, line)], found
    assert {one[0] for one in found} == {name}


def test_the_executable_bit_and_the_first_line_agree(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"script": "#!/bin/sh\n", "data": "a\n", "rendered.sh.j2": "#!/bin/sh\n"}
    repository(tmp_path, files)
    run("git", "update-index", "--chmod=-x", "script", cwd=tmp_path)
    run("git", "update-index", "--chmod=+x", "data", cwd=tmp_path)
    run("git", "update-index", "--chmod=-x", "rendered.sh.j2", cwd=tmp_path)
    found = check(Console(json=True), tmp_path).findings
    assert [(one.path, one.reason.partition(",")[0]) for one in found] == [
        ("data", "executable"),
        ("script", "its first line names an interpreter"),
    ]


def test_a_link_out_of_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "folder").mkdir()
    for name, target in {"a": "folder", "folder/b": "../c", "folder/out": "../../c", "absolute": "/etc/hosts"}.items():
        (root / name).symlink_to(target)
    found = check(Console(json=True), repository(root, {"c": "c\n"})).findings
    assert [(one.path, one.reason) for one in found] == [
        ("absolute", "a link out of the repository: /etc/hosts"),
        ("folder/out", "a link out of the repository: ../../c"),
    ]


def test_shellcheck_is_asked(tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is missing")
    (found,) = faults(tmp_path, {"run": "#!/bin/sh\necho $1\n"})
    assert found[:2] == ("run", 2)
    assert "SC2086" in found[2]


def test_without_a_tool_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path / "r", {"run": "#!/bin/bash\n)\n", "w.yml": "on: push\npermissions: {}\njobs: {}\n"})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").symlink_to(shutil.which("git") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = check(Console(json=True), root)
    assert found.findings == ()
    assert [one.what for one in found.not_checked] == [
        "1 shell scripts with bash", "1 shell scripts with shellcheck", "1 workflows with actionlint",
    ]  # fmt: skip


def test_a_source_archive_is_checked_without_what_lies_beside_its_files(tmp_path: Path) -> None:
    bad = {"a.py": "(\n", ".venv/b.py": "(\n", "x/__pycache__/c.py": "(\n", ".gitignore": ".venv\n__pycache__/\n"}
    found = check(Console(json=True), repository(tmp_path, {**SOUND, **bad}, git=False))
    assert [one.path for one in found.findings] == ["a.py"]
    assert found.files == len(SOUND) + 1  # .gitignore; a.py is in both


def test_what_git_does_not_track_is_left_out_and_what_is_deleted_no_failure(tmp_path: Path) -> None:
    repository(tmp_path, {"a.py": "a\n", "gone.py": "a\n"})
    (tmp_path / "gone.py").unlink()
    (tmp_path / "own.py").write_text("(\n")
    found = check(Console(json=True), tmp_path)
    assert (found.files, found.findings) == (1, ())


def test_a_repository_that_git_refuses_is_not_taken_for_an_archive(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(NotARepository):
        check(Console(json=True), tmp_path)


def test_the_failure_counts(tmp_path: Path) -> None:
    found = FilesChecked(
        files=3,
        findings=(Fault(path="a", reason="x"), Fault(path="a", line=2, reason="y")),
        not_checked=(),
        seconds=0.1,
    )
    failure = found.failure()
    assert isinstance(failure, ChecksFailed)
    assert failure.exit_code == 38
    assert failure.message == "2 findings in 1 of 3 files"


def test_the_task_prints_the_faults_and_ends_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = Run(config=Config(), console=Console(as_text=as_text))
    with pytest.raises(ChecksFailed):
        context.finish(check(context.console, repository(tmp_path, {"a.json": "{\n"})))
    assert capsys.readouterr().out.startswith("a.json:2: does not parse: Expecting property name")
