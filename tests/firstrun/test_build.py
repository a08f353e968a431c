"""The areas on the series and on the build, on the miniature, and what they find wrong."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.deploy.site import Site
from tests.processes import ended
from tests.shared import Miniatures
from toolchain import pipeline
from toolchain.build import load
from toolchain.build.tools import compilers
from toolchain.core import process, records
from toolchain.core.checkout import ROOT
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.firstrun import toolkit
from toolchain.firstrun.areas import build, series
from toolchain.firstrun.findings import MINIATURE

from .benches import bench, built


@pytest.mark.slow
def test_series_and_build_on_the_miniature(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, miniatures: Miniatures
) -> None:
    with built(tmp_path_factory, miniatures) as run, bench(tmp_path, run) as used:
        found = [*series.AREA.examine(used), *build.AREA.examine(used)]
        stated = (*series.AREA.assumptions, *build.AREA.assumptions)
        assert sorted(one.id for one in found) == sorted(one.id for one in stated)
        rest = {one.id: (one.status, one.reason) for one in found if one.status != "confirmed"}
        assert rest == {
            **dict.fromkeys(("build.signed", "build.minimum", "build.metal-text"), ("not tested", "needs macOS")),
            "build.reproducible": ("not tested", MINIATURE),
        }
        assert used.release is not None
        assert pipeline.directory(run, used.release).is_dir()  # it was away for a while
        assert Path(toolkit.scratch_of(used, used.release).llama_cpp).is_dir()


def test_a_build_that_cannot_begin_is_not_tested_and_so_is_the_rest(tmp_path: Path, miniatures: Miniatures) -> None:
    run = miniatures.run(tmp_path, miniatures.plain(tmp_path / "upstream"))
    short = Run(config=replace(run.config, build=replace(run.config.build, min_free_gb=1000.0)), console=run.console)
    with bench(tmp_path / "bench", short) as used:
        found = list(build.AREA.examine(used))
    assert found[0].status == "not tested"
    assert "a build needs 1000 GB" in found[0].reason
    assert {(one.status, one.reason) for one in found[1:]} == {
        ("not tested", f"no release was built ({found[0].reason})")
    }


def test_a_folder_outside_of_the_release_is_named(tmp_path: Path) -> None:
    run = Run(config=Site.make(tmp_path).config, console=Console())
    _, cc, _ = compilers(run.config.build, tmp_path / "workspace")
    (tmp_path / "a.c").write_text("int a(void) { return 1; }\n")
    library = tmp_path / "liba.so"
    argv: list[str | Path] = [cc.require().path, "-shared", "-fPIC", tmp_path / "a.c", "-Wl,-rpath,/opt/lib"]
    process.run([*argv, "-o", library])
    with bench(tmp_path / "bench", run) as used:
        found = build.linkage(used, [library])
    assert (found.status, found.reason) == ("refuted", "rpath /opt/lib")


def test_what_differs_between_two_builds_is_named(tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    first = site.release("one")
    second = tmp_path / "again"
    shutil.copytree(first, second, symlinks=True)
    with bench(tmp_path / "bench", Run(config=site.config, console=Console())) as used:
        old, new = load(first), load(first)
        assert build.differing(used, first, second, old, new) == []
        new = replace(old, files={**old.files, "bin/ollama": "0" * 64, "bin/more": "1" * 64})
        assert build.differing(used, first, second, old, new) == ["bin/ollama", "bin/more"]


def test_the_document_of_a_task_is_found_behind_its_messages() -> None:
    said = 'build ...\n{not json\nwarning: {"a"\n{\n  "id": {\n    "a": 1\n  }\n}\n'
    assert toolkit.document(said) == {"id": {"a": 1}}
    assert toolkit.document("error: nothing\n") is None


@pytest.mark.slow
def test_an_interrupt_ends_the_build_of_a_task_with_all_that_it_started(tmp_path: Path, miniatures: Miniatures) -> None:
    run = miniatures.run(tmp_path, miniatures.plain(tmp_path / "upstream"))
    values = records.to_builtins(run.config)
    del values["origins"]
    records.write(tmp_path / "all.yaml", values)
    script = f"""
from contextlib import ExitStack
from pathlib import Path
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.firstrun import toolkit
from toolchain.firstrun.bench import Bench
folder = Path({str(tmp_path)!r})
run = Run(config=load(file=folder / "all.yaml", environ={{}}), console=Console())
toolkit.task(Bench(run=run, folder=folder, cleanup=ExitStack()), "build")
"""
    child = process.spawn([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, log=tmp_path / "said")
    try:
        deadline = time.monotonic() + 120
        while not any((tmp_path / "workspace" / "logs").glob("*-compile.log")):
            assert child.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) != 0
    finally:
        process.kill_group(child.pid)
        child.wait()
    for one in psutil.process_iter():
        if one.pid != os.getpid() and str(tmp_path) in " ".join(words := words_of(one)):
            assert ended(one.pid, within=2), words  # killed: a compiler would run on for longer


def words_of(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:
        return []
