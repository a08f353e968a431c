from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path

import pytest

from tests.tasks.test_command import inv
from toolchain.core.console import Console
from toolchain.core.errors import CommandFailed, ConfigError, TextTooShort, ToolchainError, VerificationFailed
from toolchain.core.records import sha256_bytes
from toolchain.models.quality import choices as request
from toolchain.models.quality.divergence import Divergences, measure
from toolchain.stages import CacheType
from toolchain.text import as_text

from . import llama_perplexity as double
from .conftest import ROOT

TURBO4 = CacheType(name="turbo4", block=64, bytes=34)
CACHES = ("f16", "q4_0", "q4_0/plain", "q8_0:turbo4", "turbo4:f16")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted llama-perplexity as a program."""
    path = tmp_path_factory.mktemp("program") / "llama-perplexity"
    command = shlex.join([sys.executable, "-m", "tests.quality.llama_perplexity"])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
    path.chmod(0o755)
    return path


def _measure(
    program: Path, model: Path, folder: Path, caches: tuple[str, ...] = CACHES, size: int = 999
) -> Divergences:
    return measure(
        program,
        model,
        b"x" * size,
        caches=caches,
        context=64,
        added=(TURBO4,),
        log=folder / "kl.log",
        console=Console(),
    )


def test_a_table(program: Path, model: Path, tmp_path: Path) -> None:
    found = _measure(program, model, tmp_path)
    assert (found.text_bytes, found.context, found.chunks) == (999, 64, 36)
    assert found.text_sha256 == sha256_bytes(b"x" * 999)
    assert [row.cache for row in found.rows] == list(CACHES)
    rows = {row.cache: row for row in found.rows}
    assert rows["f16"].kl.mean == rows["f16"].delta.mean == 0
    assert rows["q8_0:turbo4"].bits_per_value == (8.5 + 4.25) / 2
    assert rows["q4_0"].delta.mean == pytest.approx(double.FLOOR + 4 * double.noise("q4_0"), abs=1e-6)
    assert rows["q4_0/plain"].kl.mean == pytest.approx(2 * rows["q4_0"].kl.mean, abs=2e-6)
    assert rows["q4_0"].ppl.error == 0.25
    assert rows["q4_0"].same_top.error == 0.194
    table = as_text(found)
    assert "| turbo4:f16 | 10.125 | 10.652 ± 0.250 | 0.652 ± 0.010 | 0.00652 ± 0.00010 | 99.35 ± 0.19 |" in table
    assert [path.name for path in tmp_path.iterdir()] == ["kl.log"]


def test_each_chunk_is_told(program: Path, model: Path, tmp_path: Path) -> None:
    """The single chunks, of which the program prints running means: as scripted, they lose by a pattern."""
    row = _measure(program, model, tmp_path, caches=("q4_0",)).rows[0]
    assert len(row.each) == double.CHUNKS
    assert sum(one.kl for one in row.each) / double.CHUNKS == pytest.approx(row.kl.mean, abs=1e-5)
    lost = row.kl.mean
    assert [one.kl for one in row.each[:3]] == pytest.approx([lost * one for one in double.PATTERN], abs=1e-4)
    assert [one.nll_base for one in row.each] == pytest.approx([math.log(10)] * double.CHUNKS, abs=1e-3)


def test_another_base_and_its_environment(program: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"llama-perplexity with q8_0 ended with 1(.|\n)*the scripted end"):
        measure(
            program,
            model,
            b"x" * 999,
            caches=("q4_0",),
            context=64,
            added=(TURBO4,),
            log=tmp_path / "kl.log",
            console=Console(),
            base="q8_0",
            environment={"TQ_TEST_FAIL": "crash"},
        )


def test_an_illegal_instruction_has_a_remedy(
    program: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", "illegal")
    with pytest.raises(CommandFailed, match=r"with f16 was killed by signal 4 \(Illegal instruction\)") as caught:
        _measure(program, model, tmp_path, caches=("q4_0",))
    assert "deploy.environment.LLAMA_ARG_REPACK=0" in caught.value.hint


@pytest.mark.parametrize(
    ("fail", "error", "words"),
    [
        ("crash", CommandFailed, r"with f16 ended with 1(.|\n)*the scripted end"),
        ("other-type", VerificationFailed, "asked for K q4_0 and V q4_0, the cache has K q4_0 and V f16"),
        ("no-rotation", VerificationFailed, r"asked for q4_0: K \(q4_0\) is not rotated"),
        ("no-figures", CommandFailed, "with q4_0 printed no ppl, delta, kl, same_top"),
    ],
)
def test_what_goes_wrong_is_told(
    program: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: str,
    error: type[ToolchainError],
    words: str,
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", fail)
    with pytest.raises(error, match=words):
        _measure(program, model, tmp_path, caches=("q4_0",))
    assert [path.name for path in tmp_path.iterdir()] == ["kl.log"]


def test_a_run_whose_last_lines_are_lost_is_run_again(
    program: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", "lose-once")
    found = _measure(program, model, tmp_path, caches=("q4_0",))
    assert found.rows[0].kl.mean > 0
    assert (tmp_path / "kl.log").read_text().count("$ ") == 3


def test_what_cannot_be_compared(program: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(TextTooShort, match="has 100 tokens, two contexts are needed"):
        _measure(program, model, tmp_path, size=100)
    with pytest.raises(ConfigError, match="unknown cache type 'turbo9' in 'q8_0:turbo9/plain'"):
        _measure(program, model, tmp_path / "none", caches=("q8_0:turbo9/plain",))
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_line(program: Path, model: Path, tmp_path: Path) -> None:
    """The newest program of a build is found, and the text is cut to whole characters."""
    made = tmp_path / "build" / "key" / "llama-server" / "bin" / "llama-perplexity"
    made.parent.mkdir(parents=True)
    made.symlink_to(program)
    text = tmp_path / "text"
    text.write_text("ä" * 500)
    given = ["quality.kl", "--workspace", str(tmp_path), "--model", str(model), "--text", str(text)]
    done = inv(*given, "--cache", "f16,turbo4", "--bytes", "301", "--context", "64", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["text_bytes"], [row["cache"] for row in found["rows"]]) == (300, ["f16", "turbo4"])
    assert json.loads((tmp_path / "quality" / "kl.json").read_text()) == found


def test_sweeps() -> None:
    """K and V alone and single layers, each beside f16; what is asked for twice is run once."""
    assert request.swept(["turbo4", "f16:q4_0"], [], 0) == ("turbo4", "f16:q4_0")
    assert request.swept(["turbo4", "q8_0:turbo2/plain", "turbo4:f16"], ["alone"], 0) == (
        "turbo4",
        "turbo4:f16",
        "f16:turbo4",
        "q8_0:turbo2/plain",
        "q8_0:f16/plain",
        "f16:turbo2/plain",
        "f16",
    )
    assert request.swept(["turbo2,first=1:q8_0:turbo4"], ["layers"], 2) == (
        "turbo2,first=1:q8_0:turbo4",
        "f16,layers=0:q8_0:f16,layers=0:turbo4",
        "f16,layers=1:turbo2:f16,layers=1:turbo4",
    )
    assert request.swept(["turbo4"], ["layers"], 1)[1:] == ("f16,layers=0:turbo4",)
    with pytest.raises(ConfigError, match="--sweep 'all' is unknown"):
        request.swept(["turbo4"], ["all"], 2)


def test_errors_of_nothing(program: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no token differs, the true program can print -nan for an error."""
    monkeypatch.setenv("TQ_TEST_FAIL", "nan")
    found = _measure(program, model, tmp_path, caches=("f16",))
    assert (found.rows[0].delta.mean, found.rows[0].delta.error) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 3, "no such model"),
        (["--model", "here"], 31, "--targets llama-perplexity"),
        (["--model", "here", "--bytes", "0"], 3, "positive"),
        (["--model", "here", "--program", "here"], 42, "not a GGUF model"),
    ],
)
def test_bad_input(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    (tmp_path / "here").write_text("no model")
    done = inv("quality.kl", "--workspace", str(tmp_path / "ws"), *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
