"""tq's own functions for text, run alone, by each shell and awk that this machine has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from toolchain.core import variables
from toolchain.core.errors import ConfigError
from toolchain.provisioning import tq

SCRIPT = tq.render().decode()
SHELLS = [
    shlex.split(words) for words in ("dash", "bash --posix", "busybox sh", "sh") if shutil.which(shlex.split(words)[0])
]
AWKS = [words for words in ("mawk", "gawk", "original-awk", "busybox awk") if shutil.which(words.split()[0])] or ["awk"]


def _function(name: str) -> str:
    """A function of the script, of one line or of several."""
    found = re.search(rf"^{name}\(\) \{{(?: .*}}(?: #.*)?$|.*\n(?:.*\n)*?}}$)", SCRIPT, re.MULTILINE)
    assert found, name
    return found[0]


def _run(
    text: str, *words: str, shell: list[str] = SHELLS[0], given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*shell, "-c", f"set -u\nTAB='\t'\n{text}", "tq", *words], input=given, capture_output=True)


def _flat(text: str, folder: Path, awk: str) -> tuple[int, list[str]]:
    file = folder / "file.json"
    file.write_text(text)
    program = re.search(r"^json_awk='\n.*?^'$", SCRIPT, re.MULTILINE | re.DOTALL)
    assert program
    text = f'awk() {{ {awk} "$@"; }}\n{program[0]}\n{_function("flatten")}\nflatten "$1"'
    done = _run(text, str(file))
    return done.returncode, done.stdout.decode().splitlines()


@pytest.mark.parametrize("awk", AWKS)
def test_json_becomes_lines_of_keys(awk: str, tmp_path: Path) -> None:
    value = {"a": "x y", "b": {"c/d.e": [1, {"f": True}], "empty": {}, "none": None}, "q": 'say "\\hi/"', "n": -1.5e3}
    expected = ["a\tx y", "b\tc/d.e\t0\t1", "b\tc/d.e\t1\tf\ttrue", 'q\tsay "\\hi/"', "n\t-1500.0"]
    assert _flat(json.dumps(value), tmp_path, awk) == (0, expected)
    assert _flat(json.dumps(value, indent=2), tmp_path, awk) == (0, expected)


@pytest.mark.parametrize("awk", AWKS)
def test_what_is_no_json_is_refused(awk: str, tmp_path: Path) -> None:
    for text in (
        '{"a": 1, "a": 2}', '{"a": {"b": 1}, "a": {"c": 2}}', '{"a" 1}', '{"a": 1,}', "[1 2]", '{"a": "b', "{]", "",
        '{"a": 1}}', '{"a": 01x}', '{"a": nul}', "[" * 30 + "]" * 30, '{"a": "tab\there"}', "[,]", '{"a":}', "{1: 2}",
    ):  # fmt: skip
        assert _flat(text, tmp_path, awk)[0] != 0, text


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_words_and_digests_are_those_of_python(shell: list[str]) -> None:
    for text in ("/plain/path", "pre & fix", "it's", "", 'a$b`c"d', "tail\\"):
        done = _run(f'{_function("shell_word")}\nshell_word "$1"', text, shell=shell)
        assert done.stdout.decode() == shlex.quote(text) + "\n"
        done = _run(f'{_function("utf8")}\n{_function("json")}\njson "$1"', text, shell=shell)
        assert json.loads(done.stdout) == text
    times = ("2026-11-26T18:00:00Z", "Thu, 26 Nov 2026 18:00:00 GMT", "2000-02-29T00:00:00Z", "yesterday")
    done = _run(f'{_function("epoch")}\nfor one; do echo "$(epoch "$one")"; done', *times, shell=shell)
    assert done.stdout.decode().split("\n")[:4] == ["1795716000", "1795716000", "951782400", ""]


@pytest.mark.parametrize("awk", AWKS)
def test_what_is_printed_is_utf_8(awk: str) -> None:
    text = f'LC_ALL=C\nexport LC_ALL\nawk() {{ {awk} "$@"; }}\n{_function("utf8")}\n{_function("json")}\njson "$1"'
    for given, said in (
        ("/Völker/模型/🙂".encode(), "/Völker/模型/🙂"), ("模型".encode()[:5], "模??"),
        (b"\xe4 \xc0\xaf \xed\xa0\x80", "? ?? ???"),
    ):  # fmt: skip
        done = subprocess.run(["sh", "-c", text, "tq", given], capture_output=True, check=True)
        assert json.loads(done.stdout) == said


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_an_error_of_the_shell_is_no_wrong_usage(shell: list[str]) -> None:
    names = "verb message try active parent version channel sequence work locked result changes warnings undo"
    text = f"{'= '.join(names.split())}=\ncode=0 error= healthy=null gpu_used=null begun=0 json_wanted=yes"
    functions = "\n".join(_function(name) for name in ("say", "utf8", "json", "ending"))
    done = _run(f"{text}\n{functions}\ntrap 'ending $?' EXIT\n: $nothing\nexit 0", shell=shell)
    said = json.loads(done.stdout)
    assert (done.returncode, said["exit_code"], said["error"]) == (1, 1, "bug")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_no_number_is_octal(shell: list[str]) -> None:
    text = f'{_function("is_number")}\nfor one; do is_number "$one" && echo "$one"; done'
    assert _run(text, "0", "8", "08", "10", "010", "-1", "", "x", "9" * 15, shell=shell).stdout.split() == [
        b"0",
        b"8",
        b"10",
    ]


def test_only_the_logs_of_failed_releases_are_deleted(tmp_path: Path) -> None:
    logs, other = tmp_path / "logs", tmp_path / "other"
    other.write_text("of another")
    trap = Path(f"{logs}/x\n{other}\n")  # a path of three lines
    trap.mkdir(parents=True)
    for number in range(8):
        (trap / f"failed-{number}.log").touch()
        (logs / f"failed-{number}.log").touch()
    (tmp_path / "failed").touch()
    text = "\n".join(_function(name) for name in ("say", "rename", "stamp", "save_log"))
    _run(f"{text}\nlogged() {{ :; }}\nprefix=$1 work=$1 j_release=r j_offset=0\nsave_log", str(tmp_path))
    assert other.exists()
    assert len(list(logs.glob("failed-*.log"))) == 5
    assert len(list(trap.iterdir())) == 8


def test_nothing_is_renamed_into_a_folder_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    _run(f'{_function("rename")}\nrename "$1/file" "$1/link"', str(tmp_path))
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "link").read_text() == "x"


def test_root_reads_only_what_the_user_of_the_service_owns(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x")
    (tmp_path / "link").symlink_to("log")
    os.mkfifo(tmp_path / "pipe")
    text = f'{_function("hold")}\nwork=$1 root=yes euid=7777777 uid=$2\nhold "$1/$3" && cat "$held"'
    for name, uid, said in (("log", os.geteuid(), b"x"), ("log", os.geteuid() + 1, b""), ("pipe", os.geteuid(), b"")):
        assert _run(text, str(tmp_path), str(uid), name).stdout == said
    link = _run(text, str(tmp_path), str(os.geteuid() + 1), "link")
    assert not link.stdout


_CACHE = (
    "llama_kv_cache: size = {0:.2f} MiB ({1:6} cells, {2:3} layers,  1/1 seqs), "
    "K ({3}): {4:.2f} MiB, V ({5}): {6:.2f} MiB"
)


def _line(cells: int, kinds: str, *, factor: float = 1.0) -> str:
    """What llama-server says of a cache of 8 layers with 128 values each."""
    sizes = {"f16": 2.0, "q8_0": 34 / 32, "turbo4": 34 / 64}
    k, _, v = kinds.partition(":")
    mib = [cells * 8 * 128 * sizes.get(kind, 1.0) * factor / (1 << 20) for kind in (k, v or k)]
    return _CACHE.format(sum(mib), cells, 8, k, mib[0], v or k, mib[1])


def _parts(side: str, **layers: str) -> str:
    """What it says of single layers."""
    line = "llama_kv_cache: {} of attention layers {} (of 8): {}, 0.10 MiB"
    return "\n".join(line.format(side, spans, kind) for kind, spans in layers.items())


RULED = (_line(512, "turbo4+q8_0"), _parts("K", q8_0="0-1,7", turbo4="2-6"), _parts("V", q8_0="0-1,7", turbo4="2-6"))


@pytest.mark.parametrize("awk", AWKS)
@pytest.mark.parametrize(
    ("asked", "log", "verdict"),
    [
        ("turbo4", [_line(512, "turbo4")], "ok "),
        ("turbo4", ["time=1 msg=x " + _line(512, "turbo4"), "more"], "ok "),
        ("q8_0:turbo4", [_line(512, "q8_0:turbo4")], "ok "),
        ("turbo4", [_line(512, "f16")], "asked for turbo4, and"),
        ("q8_0:turbo4", [_line(512, "turbo4:q8_0")], "asked for q8_0:turbo4, and"),
        ("turbo4", [_line(512, "turbo4", factor=2)], " has another size than turbo4"),
        ("turbo4", [_line(256, "f16"), _line(512, "turbo4"), _line(2048, "f16")], "ok "),
        ("turbo4", [_line(256, "turbo4")], ""),
        ("turbo4", ["llama_kv_cache: size = (, : x"], ""),
        ("turbo4", [_line(512, "turbo4") + "x" * 5000], ""),
        ("turbo4,first=2:q8_0,last=1:q8_0", RULED, "ok "),
        ("turbo4,layers=0-1:q8_0,layers=7:q8_0", RULED, "ok "),
        ("turbo4,first=2:q8_0,last=1:q8_0:turbo4", RULED, "asked for"),
        ("turbo4,first=3:q8_0,last=1:q8_0", RULED, "layer 2 is turbo4"),
        ("turbo4,first=2:q8_0,last=1:q8_0", RULED[:1], "asked for"),
    ],
)
def test_the_cache_is_judged_by_its_line(awk: str, asked: str, log: list[str], verdict: str) -> None:
    found = re.search(r"^cache_awk='\n(.*?)^'$", SCRIPT, re.MULTILINE | re.DOTALL)
    assert found
    done = subprocess.run(
        [*awk.split(), "-v", "cells=512", "-v", "most=1", found[1]],
        input="\n".join(log).encode(), capture_output=True, check=True,
        env={"asked": asked, "types": "f16:1:2 q8_0:32:34 turbo4:64:34 ", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    said = done.stdout.decode()
    assert verdict in said
    assert bool(said) == bool(verdict)


def test_what_is_reserved_is_what_deploy_refuses() -> None:
    for name in tq.RESERVED:
        if name.startswith(("OLLAMA_", "LLAMA_")):
            continue  # of the unit: further.py
        with pytest.raises(ConfigError):
            variables.check({name: ""})
    listed = {name for name in re.findall(r"[A-Z][A-Z0-9_]+", variables._SHELL.pattern) if name not in ("BASH",)}
    assert {name for name in listed if variables._SHELL.fullmatch(name)} <= set(tq.RESERVED)


def test_the_same_toolkit_renders_the_same_script() -> None:
    assert tq.render() == tq.render()
    left = set(re.findall(r"@TQ_[A-Z]+@", SCRIPT)) - set(re.findall(r"@TQ_[A-Z]+@", tq._shim() + tq._property_list()))
    assert left == {"@TQ_MB@", "@TQ_NAME@"}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_shell_reads_it(shell: list[str]) -> None:
    assert subprocess.run([*shell, "-n"], input=tq.render(), capture_output=True).returncode == 0


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=tq.render(), capture_output=True)
    assert not done.stdout, done.stdout.decode()[:2000]
