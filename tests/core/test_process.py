"""Running programs: output, logs, failures and time limits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.processes import ended
from toolchain.core.errors import BuildFailed, CommandFailed, MissingTool
from toolchain.core.process import TAIL_LINES, ask, capture, kill_group, run, spawn

PYTHON = [sys.executable, "-c"]


def test_output_log_and_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)"
    done = run([*PYTHON, script], log=tmp_path / "logs/a.log", on_line=lines.append)
    assert done.output == "out\nerr\n"
    assert lines == ["out", "err"]
    log = (tmp_path / "logs/a.log").read_text()
    assert log.startswith(f"$ {sys.executable} -c")
    assert log.endswith("out\nerr\n")


def test_a_failure_shows_command_place_and_tail(tmp_path: Path) -> None:
    script = "import sys; [print('line', n) for n in range(100)]; sys.exit(7)"
    with pytest.raises(BuildFailed) as caught:
        run([*PYTHON, script], cwd=tmp_path, failure=BuildFailed, what="the step", log=tmp_path / "l")
    message = str(caught.value)
    assert message.startswith("the step ended with 7")
    assert all(word in message for word in ("range(100)", str(tmp_path), "line 99", str(tmp_path / "l")))
    assert message.count("    line ") == TAIL_LINES


def test_no_shell_reads_the_arguments() -> None:
    assert run([*PYTHON, "import sys; print(sys.argv[1])", "$(id); `id`"]).output == "$(id); `id`\n"


def test_missing_program_and_directory(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="no-such-program"):
        run(["no-such-program"])
    with pytest.raises(CommandFailed, match="no such directory"):
        run(PYTHON, cwd=tmp_path / "none")


@pytest.mark.parametrize("group", ["", ", process_group=0"], ids=["its group", "a group of its own, as of ninja's"])
def test_a_time_limit_kills_all_that_was_started(tmp_path: Path, group: str) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]{group})"
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="exceeded its time limit of 2 s"):
        run([*PYTHON, script], timeout=2)
    assert time.monotonic() - started < 20
    pid = int(pid_file.read_text())
    assert ended(pid)


def test_streams_are_captured_apart(tmp_path: Path) -> None:
    script = "import os, sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); print(os.environ, file=sys.stderr)"
    found = capture([*PYTHON, script], given=b"\0\xff\n", base={}, env={"ONE": "1"}, cwd=tmp_path)
    assert found.stdout == b"\0\xff\n"
    assert "'ONE': '1'" in found.error_text
    assert "'PATH'" not in found.error_text, "base stands for our own environment"
    assert "'PATH'" in capture([*PYTHON, script], env={"ONE": "1"}).error_text


def test_a_captured_failure_shows_stderr() -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    with pytest.raises(BuildFailed, match=r"^the probe ended with 3: err$"):
        capture([*PYTHON, script], failure=BuildFailed, what="the probe")
    assert capture([*PYTHON, script], check=False).returncode == 3
    with pytest.raises(BuildFailed, match=r"exceeded its time limit of 0\.5 s"):
        capture([*PYTHON, "import time; time.sleep(60)"], timeout=0.5, check=False, failure=BuildFailed)


def test_asking_a_program_never_fails(tmp_path: Path) -> None:
    assert ask([*PYTHON, "print('3.1')"]) == "3.1\n"
    assert ask([*PYTHON, "print('3.1'); exit(1)"]) == ask(["no-such-program"]) == ask([tmp_path]) == ""


def test_a_child_in_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = spawn([*PYTHON, "import os, time; print(os.getsid(0), flush=True); time.sleep(60)"], log=log)
    deadline = time.monotonic() + 20
    while not log.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.read_text() == f"{child.pid}\n"
    kill_group(child.pid)
    assert child.wait() == -9
    with pytest.raises(BuildFailed, match="cannot be started") as caught:
        spawn([tmp_path], failure=BuildFailed, hint="built for this machine?")
    assert caught.value.hint == "built for this machine?"
