"""The lab as a whole: the series' own kernels, selections, records, and the command line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.test_command import inv
from toolchain.build.quantizers import compile_library
from toolchain.core import records
from toolchain.core.config import Config, load
from toolchain.core.console import Console
from toolchain.core.errors import BuildFailed, ConfigError, MissingTool
from toolchain.core.records import sha256_bytes
from toolchain.models.quality import benchmark as lab
from toolchain.models.quality import benchmark_page, kernels
from toolchain.models.quality import choices as request
from toolchain.models.quality.benchmark import Benchmark, DumpSource, Selection
from toolchain.models.quality.samples import DISTRIBUTIONS
from toolchain.series import manifest
from toolchain.tasks.flags import Names, Numbers
from toolchain.text import as_text

KEYS = {
    "type", "data", "rotated", "seed", "bits_per_value", "snr_db", "gap_db", "cosine", "ip_bias", "ip_variance"
}  # fmt: skip


TEXT = "A text of some length. " * 20


@pytest.fixture(scope="session")
def series() -> manifest.Series:
    """The toolkit's own series."""
    return manifest.load()


@pytest.fixture(scope="session")
def found(series: manifest.Series, config: Config, workspace: Path, model: Path, server: Path) -> Benchmark:
    """Everything on short data, a dump included."""
    source = DumpSource(server=server, model=model, text=TEXT)
    return lab.run(Selection(tokens=300), source, series, config, Console(), workspace=workspace)


@pytest.mark.slow
def test_every_type_on_every_data_set(found: Benchmark, series: manifest.Series) -> None:
    assert found.text_sha256 == sha256_bytes(TEXT.encode())
    types = {*(kind.name for kind in series.types), "q4_0", "iq4_nl", "q8_0"}
    layers = {f"dump.{kind}.{layer}" for kind in "kv" for layer in range(2)}
    data = {*DISTRIBUTIONS, *layers, "dump", "dump.k", "dump.v"}
    seen = [(row.type, row.data, row.rotated) for row in found.rows]
    assert len(seen) == len(set(seen)) == len(types) * len(data) * 2
    assert {(kind, name) for kind, name, _ in seen} == {(kind, name) for kind in types for name in data}
    for row in found.rows:
        assert row.gap_db == pytest.approx(6.0206 * row.bits_per_value - row.snr_db, abs=1e-3)
        assert row.snr_db > 0
        assert 0 < row.cosine < 1
        assert -1 < row.ip_bias < 0.05
    assert {row.context for row in found.attention} == {256, 300}
    assert {row.data for row in found.attention} == data - {"dump", "dump.v", "dump.v.0", "dump.v.1"}


@pytest.mark.slow
def test_the_kernels_do_what_their_bits_allow(found: Benchmark, series: manifest.Series) -> None:
    """Far from a stub: within 4.5 dB of the bound on rotated Gaussian data, and better with more bits."""
    rows = {row.type: row for row in found.rows if row.data == "gaussian" and row.rotated}
    ours = sorted((rows[kind.name] for kind in series.types), key=lambda row: row.bits_per_value)
    assert [row.bits_per_value for row in ours] == sorted(8 * kind.bytes / kind.block for kind in series.types)
    assert all(0 < row.gap_db < 4.5 for row in ours)
    assert ours[0].snr_db < ours[1].snr_db < ours[2].snr_db


@pytest.mark.slow
def test_sums_of_a_dump_are_means_of_its_layers(found: Benchmark) -> None:
    rows = {row.data: row for row in found.rows if row.type == "turbo4" and row.rotated}
    lost = [10 ** (-rows[f"dump.k.{layer}"].snr_db / 10) for layer in range(2)]
    assert rows["dump.k"].snr_db == pytest.approx(-10 * math.log10(sum(lost) / 2))
    assert rows["dump"].cosine == pytest.approx((rows["dump.k"].cosine + rows["dump.v"].cosine) / 2)


def test_a_selection_and_its_repetition(series: manifest.Series, config: Config, workspace: Path) -> None:
    chosen = Selection(
        types=("q4_0",), data=("gaussian", "offset"), seeds=(1, 2), rotations=(False,), tokens=64, head_size=64
    )
    runs = [lab.run(chosen, None, series, config, Console(), workspace=workspace) for _ in range(2)]
    assert runs[0] == runs[1]
    assert [(row.type, row.data, row.rotated, row.seed) for row in runs[0].rows] == [
        ("q4_0", name, False, seed) for seed in (1, 2) for name in ("gaussian", "offset")
    ]
    assert len({row.snr_db for row in runs[0].rows}) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"types": ("turbo9",)}, "unknown type 'turbo9'"),
        ({"data": ("laplace",)}, "unknown data set 'laplace'"),
        ({"data": ("dump",)}, "needs a model"),
        ({"tokens": 1}, "too few"),
        ({"head_size": 80}, "not rotated"),
    ],
)
def test_what_cannot_be_measured(
    series: manifest.Series, config: Config, workspace: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        lab.run(Selection(**changes), None, series, config, Console(), workspace=workspace)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_files_of_a_run(found: Benchmark, tmp_path: Path) -> None:
    page = benchmark_page.save(found, tmp_path).read_text()
    assert (tmp_path / "snr.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    assert all(f"<h2>{panel.data}</h2>" in page for panel in benchmark_page.panels(found))
    assert page.count("dump.k.1, turbo3") >= 2
    assert records.read(tmp_path / "quality.json", Benchmark) == found
    text = as_text(found)
    assert "dump.k " in text
    assert "dump.k.1" not in text


def test_kernels_are_compiled_once(series: manifest.Series, config: Config, workspace: Path) -> None:
    library = compile_library(series, config, workspace)
    before = library.stat().st_mtime_ns
    assert compile_library(series, config, workspace).stat().st_mtime_ns == before
    assert [path.name for path in library.parent.iterdir()] == [library.name]
    codecs = {codec.name: codec for codec in kernels.load(series, config, workspace)}
    x = np.random.default_rng(0).standard_normal((4, 128), dtype=np.float32)
    restored = codecs["turbo4"].restore(x)
    assert 0 < np.square(restored - x).mean() < 0.02
    assert not codecs["turbo2"].restore(x * 0).any()


def _copy(tmp_path: Path, edit: tuple[str, str], file: str = "ggml-turbo.c") -> manifest.Series:
    """The series with one text replaced in a file of the kernels."""
    root = tmp_path / "patches"
    shutil.copytree(manifest.OWN_SERIES, root)
    source = root / "kernels" / file
    assert edit[0] in source.read_text()
    source.write_text(source.read_text().replace(*edit))
    manifest.seal(root)
    return manifest.load(root)


def test_kernels_that_do_not_compile(tmp_path: Path, config: Config) -> None:
    broken = _copy(
        tmp_path, ("float ggml_turbo_half_to_float", "#error the scripted mistake\nfloat ggml_turbo_half_to_float")
    )
    with pytest.raises(BuildFailed, match="the scripted mistake"):
        kernels.load(broken, config, tmp_path)
    assert not list((tmp_path / "quality" / "kernels").iterdir())


def test_kernels_without_a_type(tmp_path: Path, config: Config) -> None:
    renamed = _copy(tmp_path, ("X(TURBO3, turbo3, 2) ", " "), "ggml-turbo-types.h")
    with pytest.raises(BuildFailed, match=r"turbo3|quantize_row"):
        kernels.load(renamed, config, tmp_path)


def test_no_compiler(series: manifest.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(MissingTool, match="cc"):
        kernels.load(series, load(environ={}, flags={"build.compiler": "system"}), tmp_path)


def test_flags() -> None:
    chosen = request.selection(
        Names.read(["turbo4,q4_0", "turbo2"]), (), Numbers.read(["3", "1,3"]), True, False, 10, 64
    )
    assert (chosen.types, chosen.seeds, chosen.rotations) == (("turbo4", "q4_0", "turbo2"), (3, 1), (True,))
    assert request.selection((), (), (), False, True, 10, 64).rotations == (False,)
    assert request.selection((), (), (), True, True, 10, 64).rotations == (True, False)
    assert request.selection((), (), (), False, False, 10, 64).seeds == (0,)
    with pytest.raises(ConfigError, match="--seed '-1'"):
        Numbers.read(["-1"], "seed")


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, workspace: Path, model: Path, server: Path) -> None:
    given = ["quality", "--workspace", str(workspace), "--json", "--type", "turbo4", "--type", "q8_0", "--no-rotated"]
    given += ["--data", "student3", "--data", "dump", "--model", str(model), "--server", str(server), "--seed", "5"]
    done = inv(*given, "--tokens", "200", "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    rows = printed["rows"]
    assert set(printed) == {"rows", "attention", "text_sha256"}
    assert all(set(row) == KEYS for row in rows)
    assert {(row["type"], row["seed"], row["rotated"]) for row in rows} == {("turbo4", 5, False), ("q8_0", 5, False)}
    assert {row["data"] for row in rows} >= {"student3", "dump", "dump.k", "dump.v", "dump.v.1"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "snr.png", "quality.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--type", "turbo9"], 3, "turbo4, turbo3, turbo2, turbo5"),
        (["--data", "dump"], 3, "needs a model"),
        (["--seed", "x"], 3, "whole number"),
        (["--model", "none.gguf"], 3, "no such model"),
        (["--model", "tasks.gguf", "--text", "none.txt", "--server", "s"], 3, "cannot be read"),
        (["--model", "tasks.gguf", "--server", "/nowhere"], 42, "not a GGUF model"),
        (["--model", "tasks.gguf", "--release", "none"], 31, "not a release directory"),
    ],
)
def test_bad_input(tmp_path: Path, workspace: Path, args: list[str], code: int, words: str) -> None:
    (tmp_path / "tasks.gguf").write_text("no model")
    done = inv("quality", "--workspace", str(workspace), *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
