from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolchain.build import platform_name
from toolchain.core import config, records
from toolchain.core.console import Console
from toolchain.core.errors import (
    ConfigError,
    DiskFull,
    ModelLoadFailed,
    RecordError,
    ReleaseInvalid,
    ServerFailed,
    ToolchainError,
    VerificationFailed,
)
from toolchain.proofs import Verdict, Verification
from toolchain.serving import ollama_server as server
from toolchain.stages import CacheType, Release
from toolchain.text import as_text
from toolchain.verify import checklist, gpu, probes, verify

from .conftest import TURBO4, MakeRelease, write_programs

Run = Callable[..., Verification]


@pytest.fixture
def run(tmp_path: Path, make_release: MakeRelease, monkeypatch: pytest.MonkeyPatch) -> Run:
    def verified(
        types: str = "turbo4",
        *,
        added: tuple[CacheType, ...] = (TURBO4,),
        denied: tuple[int, ...] = (),
        gpu_required: bool = False,
        **behaviour: Any,
    ) -> Verification:
        """`denied` are the points of the checklist that do not hold; how they are judged has tests of its own."""
        points = [
            Verdict(number=number, name=name, ok=number not in denied, evidence=f"figures of point {number}")
            for number, name in enumerate(checklist.NAMES[:-1] if added else (), start=1)
        ]
        none = VerificationFailed("no evidence was collected")
        examined = checklist.Examined(probed=none, graph=none, kinds=added) if added else None
        monkeypatch.setattr(checklist, "examine", lambda *_, **__: examined)
        monkeypatch.setattr(checklist, "judge", lambda _: tuple(points))
        flags = {"verify.types": types, "verify.tokens": 7, "verify.timeout_s": 20}
        if gpu_required:
            flags["verify.gpu"] = "required"
        settings = config.load(environ={}, flags=flags)
        release = make_release(added, **behaviour)
        write_programs(release)
        return verify(release, settings, Console(), workspace=tmp_path / "workspace")

    return verified


def _folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace" / "verifications" / "release"


def _failed(run: Run, tmp_path: Path, expected: type[ToolchainError], **behaviour: Any) -> tuple[Verification, str]:
    """The record and the report of a verification that must fail, and say the same as the error."""
    with pytest.raises(expected) as caught:
        run(**behaviour)
    assert type(caught.value) is expected
    written = records.read(_folder(tmp_path) / "verification.json", Verification)
    report = (_folder(tmp_path) / "report.md").read_text()
    assert not written.ok
    assert "# Verification of release: FAILED" in report
    for proof in written.proofs:
        assert proof.ok == (proof.reason == "")
        assert proof.reason in caught.value.message
        assert proof.reason.splitlines()[:1] == [] or proof.reason.splitlines()[0] in report
    return written, caught.value.message


@pytest.mark.slow
def test_an_honest_server_is_proven(run: Run, tmp_path: Path) -> None:
    found = run("turbo4,q8_0:turbo4,f16")
    assert found.ok
    assert [(proof.kv_cache_type, proof.head_size) for proof in found.proofs] == [
        (kind, size) for kind in ("turbo4", "q8_0:turbo4", "f16") for size in (64, 128)
    ]
    for proof in found.proofs:
        assert (proof.ok, proof.tokens, proof.text, proof.context_shifts) == (True, 7, "x" * 7, 1)
        assert proof.on_gpu is None, "no GPU was required"
        (cache,) = proof.caches
        assert (cache.cells, cache.layers) == (256, 8)
    pair = found.proofs[3]
    assert (pair.caches[0].type_k, pair.caches[0].type_v) == ("q8_0", "turbo4")
    # 256 cells, 8 layers, 2 heads of 128: 524288 values in K and in V, at 8.5 and 4.25 bits.
    assert pair.caches[0].expected_bytes == 524288 * (8.5 + 4.25) / 8
    assert "turbo9" in found.unknown_type_message
    assert "turbo4" in found.unknown_type_message
    assert "http" not in found.unknown_type_message
    assert found.tester is not None
    assert found.tester.platform == platform_name()

    assert records.read(_folder(tmp_path) / "verification.json", Verification) == found
    report = (_folder(tmp_path) / "report.md").read_text()
    assert "# Verification of release: proven" in report
    assert "What failed" not in report
    assert "\n6. **quantizing and dequantizing agree on every backend: ok.** figures of point 6\n" in report
    assert "| q8_0:turbo4 | 128 | q8_0 | turbo4 | 256 | 0.80 | 0.797 | 8.5 / 4.25 | 7 | 1 | proven |" in report
    for proof in found.proofs:
        assert proof.caches[0].line in report
    assert sorted(path.name for path in _folder(tmp_path).iterdir()) == ["logs", "report.md", "verification.json"]
    assert {path.name for path in (_folder(tmp_path) / "logs").iterdir()} == {
        "turbo4.log", "q8_0-turbo4.log", "f16.log", "turbo9.log",
    }  # fmt: skip
    imports = [path.read_text().count("POST /api/create") for path in (_folder(tmp_path) / "logs").iterdir()]
    assert sorted(imports) == [0, 0, 0, 2]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"state_type": "f16"}, "asked for K turbo4 and V turbo4, the cache has K f16 and V f16"),
        ({"state_scale": 1.06}, "K as turbo4 takes 0.133 MiB, the log says 0.14"),
        ({"state_cells": 2048}, "asked for 256 cells, the cache has 2048"),
        ({"state_rotation": 0}, "K is turbo4, and the log does not say that it is rotated"),
        ({"shift": False}, "asked for 16 tokens past the end of a context of 256, got 7 after a prompt of 249"),
        ({"state_shift": False}, "the log states no context shift"),
        ({"missing_tokens": 2}, "asked for 7 tokens, got 5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_server_that_lies_fails(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(server, "_SETTLE_S", 0.2)
    written, message = _failed(run, tmp_path, VerificationFailed, **behaviour)
    assert "2 of 9 proofs failed" in message
    assert written.proofs[0].reason.startswith("turbo4 on probe-64: ")
    assert reason in written.proofs[0].reason
    assert not any(proof.ok for proof in written.proofs)


def test_a_point_of_the_checklist_that_does_not_hold_fails(run: Run, tmp_path: Path) -> None:
    written, message = _failed(run, tmp_path, VerificationFailed, denied=(3,))
    assert "1 of 9 proofs failed" in message
    assert "the codebook is Lloyd-Max for what the encoder produces: FAILED: figures of point 3" in message
    assert all(proof.ok for proof in written.proofs)
    assert [point.ok for point in written.checklist] == [True, True, False, True, True, True]
    assert "produces: FAILED.** figures of point 3" in (_folder(tmp_path) / "report.md").read_text()
    shown = as_text(written)
    assert "  3 FAILED the codebook" in shown
    assert "  4 ok     the radius" in shown


def test_a_type_that_does_not_load(run: Run, tmp_path: Path) -> None:
    """The other type is still proven, and the reason comes with what llama-server said."""
    written, message = _failed(run, tmp_path, ModelLoadFailed, types="turbo4,q8_0", unloadable=["turbo4"])
    assert [proof.ok for proof in written.proofs] == [False, False, True, True]
    assert "turbo4 on probe-64: http://" in message
    assert "exit status 1\n    error while handling argument: Unsupported cache type: turbo4" in message


def test_one_that_dies_while_generating(run: Run, tmp_path: Path) -> None:
    written, message = _failed(run, tmp_path, VerificationFailed, die="generate")
    assert "ended with 134" in message
    assert "the scripted end" in message
    assert [proof.caches for proof in written.proofs] == [(), ()]


def test_one_that_dies_at_the_start(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="the scripted start failed"):
        run(die="start")
    assert [path.name for path in _folder(tmp_path).iterdir()] == ["logs"]


def test_a_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_probe(path: Path, **geometry: int) -> None:
        path.write_bytes(b"GG")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(probes, "write_probe", write_probe)
    with pytest.raises(DiskFull, match="no space for the probe models"):
        run()
    assert list(_folder(tmp_path).iterdir()) == []


def test_an_unknown_type_must_be_named(run: Run, tmp_path: Path) -> None:
    written, message = _failed(run, tmp_path, VerificationFailed, vague=True)
    assert "does not name turbo9, turbo4: exit status 1" in message
    assert written.unknown_type_message == "exit status 1"
    assert all(proof.ok for proof in written.proofs)


def test_an_unknown_type_must_be_refused(run: Run, tmp_path: Path) -> None:
    written, message = _failed(run, tmp_path, VerificationFailed, refuse_nothing=True)
    assert "accepted a cache type that does not exist" in message
    assert written.unknown_type_message == ""


def test_a_release_without_types_of_its_own_promises_no_message(run: Run, tmp_path: Path) -> None:
    found = run("q8_0", added=(), vague=True)
    assert found.ok
    assert found.unknown_type_message == "exit status 1"
    assert found.checklist == ()
    assert "that answer is not checked" in (_folder(tmp_path) / "report.md").read_text()


@pytest.mark.parametrize("types", ["turbo5", "q8_0:turbo5", "turbo5:f16"])
def test_a_type_that_the_release_lacks(run: Run, tmp_path: Path, types: str) -> None:
    with pytest.raises(ConfigError, match=r"no cache type turbo5\n.*f16.*turbo4"):
        run(types)
    assert not (tmp_path / "workspace").exists()


def test_a_folder_that_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"manifest\.json"):
        verify(tmp_path, config.load(environ={}), Console(), workspace=tmp_path / "workspace")


@pytest.mark.parametrize("name", ["../../escape", "", ".", "a/b", "-rf"])
def test_a_release_id_that_would_leave_the_workspace(tmp_path: Path, make_release: MakeRelease, name: str) -> None:
    release = make_release()
    manifest = release / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"id": "release"', f'"id": "{name}"'))
    with pytest.raises(ReleaseInvalid, match="not a valid release id"):
        verify(release, config.load(environ={}), Console(), workspace=tmp_path / "workspace")
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(("platform", "setting"), [("macos-arm64", "auto"), ("linux-x86_64", "required")])
def test_when_a_gpu_is_required(make_release: MakeRelease, platform: str, setting: str) -> None:
    """On a Mac always, whatever the build of llama.cpp; elsewhere where the operator says so."""
    stated = records.read(make_release((TURBO4,)) / "manifest.json", Release)
    chosen = config.load(environ={}, flags={"verify.gpu": setting})
    for build in (1, 10488, 99999):
        assert gpu.needed(chosen, replace(stated, llama_cpp_build=build, platform=platform))
    assert gpu.needed(config.load(environ={}), stated) == gpu.skipped(chosen, stated) == ""
    skipping = config.load(environ={}, flags={"verify.gpu": "skip"})
    assert gpu.needed(skipping, replace(stated, platform="macos-arm64")) == gpu.skipped(skipping, stated) == ""
    assert "nothing shows that the GPU computes" in gpu.skipped(skipping, replace(stated, platform="macos-arm64"))


def test_a_service_on_a_required_gpu(run: Run) -> None:
    assert [proof.on_gpu for proof in run(gpu_required=True, gpu="used").proofs] == [9 << 20] * 2


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        ("cache on the CPU", "the server computes on the CPU: its log places the KV cache in CPU"),
        ("idle", "the server computes on the CPU: /api/ps states size_vram 0"),
    ],
)
def test_a_service_that_computes_on_the_cpu(run: Run, tmp_path: Path, gpu: str, reason: str) -> None:
    written, _ = _failed(run, tmp_path, VerificationFailed, gpu_required=True, gpu=gpu)
    assert [proof.reason for proof in written.proofs] == [f"turbo4 on probe-{size}: {reason}" for size in (64, 128)]
