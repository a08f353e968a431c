"""The rehearsal, run once and kept; then what it left is looked at.

`.ci/run` rehearses on its bare machine before it has the tests' tools, and names in `REHEARSED` the folder of that one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from toolchain.build import content_digest
from toolchain.core import records
from toolchain.core.config import VerifyConfig
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, MissingTool
from toolchain.proofs import Verification
from toolchain.rehearsal import rehearsal as rehearse
from toolchain.stages import Deployment, Release, Rendered, Scratch, Sources
from toolchain.text import as_text

pytestmark = pytest.mark.slow

STAGES = [
    *("doctor", "sources", "series", "build", "verify", "deploy"),
    *("build of an unhealthy release", "deploy and rollback"),
]


REHEARSED = os.environ.get("REHEARSED", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(REHEARSED).resolve() / "kept" if REHEARSED else tmp_path_factory.mktemp("rehearsal") / "kept"


@pytest.fixture(scope="module")
def rehearsal(folder: Path) -> rehearse.Rehearsal:
    if REHEARSED:
        return records.read(folder.with_name("rehearsal.json"), rehearse.Rehearsal)
    return rehearse.rehearse(Console(json=True), folder)


def test_all_stages_pass_and_the_result_has_the_promised_shape(rehearsal: rehearse.Rehearsal) -> None:
    shown = msgspec.json.decode(records.to_json(rehearsal))
    assert set(shown) == {"stages", "rolled_back", "active"}
    assert [stage["name"] for stage in shown["stages"]] == STAGES
    assert all(set(stage) == {"name", "seconds", "ok"} and stage["ok"] is True for stage in shown["stages"])
    assert shown["rolled_back"] is True
    assert "turbo1" in shown["active"]
    assert shown["active"] in as_text(rehearsal)


def test_the_first_release_is_active_and_the_faulty_one_left_its_log(
    rehearsal: rehearse.Rehearsal, folder: Path
) -> None:
    prefix = folder / "prefix"
    assert (prefix / "current").resolve() == prefix / "releases" / rehearsal.active
    (log,) = (prefix / "logs").glob("failed-*turbo2*.log")
    assert "GGML_ASSERT(n_past < 4) failed" in log.read_text()
    built = [records.read(path, Release) for path in (folder / "workspace" / "releases").glob("*/manifest.json")]
    assert len({release.series_sha256 for release in built}) == len(built) == 2


def test_every_type_was_proven_by_the_size_of_its_cache(rehearsal: rehearse.Rehearsal, folder: Path) -> None:
    report = folder / "workspace" / "verifications" / rehearsal.active / "verification.json"
    proven = records.read(report, Verification)
    assert {proof.kv_cache_type for proof in proven.proofs} == set(VerifyConfig().types)
    assert all(proof.ok and proof.context_shifts > 0 for proof in proven.proofs)
    pair = next(proof for proof in proven.proofs if proof.kv_cache_type == "q8_0:turbo4")
    assert {(cache.type_k, cache.type_v) for cache in pair.caches} == {("q8_0", "turbo4")}
    own = next(proof for proof in proven.proofs if proof.option)  # the server's type does not exist
    assert (own.option, {cache.type_k for cache in own.caches}) == ("kv_cache_type", {own.kv_cache_type})
    assert all(2 * cache.mib_v == pytest.approx(cache.mib_k, abs=0.02) for cache in pair.caches)
    assert [verdict.ok for verdict in proven.checklist] == [True] * 6


def test_every_stage_left_its_record(rehearsal: rehearse.Rehearsal, folder: Path) -> None:
    runs = folder / "workspace" / "runs"
    kept = runs / rehearsal.active
    stages = {"sources": Sources, "rendered": Rendered, "scratch": Scratch, "release": Release}
    stages |= {"verification": Verification, "deployment": Deployment}
    found: dict[str, Any] = {name: records.read(kept / f"{name}.json", kind) for name, kind in stages.items()}
    assert sorted(path.stem for path in kept.iterdir()) == sorted(stages)
    release = found["release"]
    assert (release.id, release.ollama_commit) == (rehearsal.active, found["scratch"].ollama_commit)
    assert release.series_sha256 == found["rendered"].series_sha256
    assert found["verification"].content_sha256 == content_digest(release)
    assert (found["deployment"].active, found["deployment"].verified) == (rehearsal.active, True)
    (other,) = (path for path in runs.glob("*turbo2*"))
    assert {path.stem for path in other.iterdir()} == {"sources", "rendered", "scratch", "release"}  # never verified


@pytest.mark.usefixtures("rehearsal")
def test_no_process_is_left(folder: Path) -> None:
    left = []
    for process in psutil.process_iter(["cwd", "exe", "cmdline"]):
        words = [process.info["cwd"], process.info["exe"], *(process.info["cmdline"] or ())]
        left += [words] if any(str(folder) in (word or "") for word in words) else []
    assert not left


@pytest.mark.usefixtures("rehearsal")
def test_the_patched_trees_pass_their_own_tests(folder: Path) -> None:
    (scratch,) = (folder / "workspace" / "scratch").iterdir()
    (build,) = (folder / "workspace" / "build").glob("*/llama-server")
    tools, targets = Path(sys.executable).parent, ("test-quantize-fns", "test-backend-ops")
    source = scratch / "ollama" / "llama" / "server"
    subprocess.run([tools / "cmake", "-S", source, "-B", build, "-DLLAMA_BUILD_TESTS=ON"], check=True)
    subprocess.run([tools / "cmake", "--build", build, "--target", *targets], check=True)
    for target in targets:
        done = subprocess.run([build / "bin" / target], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert all(name in done.stdout for name in ("turbo5", "turbo4", "turbo3", "turbo2"))
    environment = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    go: list[str | Path] = [tools / "go", "test", "-vet=off", "./llm/"]
    done = subprocess.run(go, cwd=scratch / "ollama", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no test files" not in done.stdout


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="not an empty folder"):
        rehearse.rehearse(Console(json=True), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_missing_tool_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(MissingTool, match="git"):
        rehearse.rehearse(Console(json=True))
    assert "FAILED" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
