"""`verify` judges the service's cache type on the model that the operator named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.verify.conftest import write_release
from toolchain.core import config, records
from toolchain.core.cachetypes.table import UPSTREAM, averages, own, standard
from toolchain.core.console import Console
from toolchain.core.errors import CacheCollapse, ConfigError
from toolchain.core.run import Run
from toolchain.models.compatibility import examination
from toolchain.models.compatibility import verdict as guard
from toolchain.proofs import Verification
from toolchain.stages import Release
from toolchain.text import as_text
from toolchain.verify import checklist, verify

pytestmark = pytest.mark.slow


def _verify(tmp_path: Path, server: Path, model: str, **flags: str) -> Verification:
    release = tmp_path / "release"
    if not release.exists():
        write_release(release)
        (release / "lib" / "ollama").mkdir(parents=True)
        (release / "lib" / "ollama" / "llama-server").symlink_to(server)
    chosen = {"verify.types": "turbo4", "verify.timeout_s": 60, "verify.model": model, **flags}
    return verify(release, config.load(environ={}, flags=chosen), Console(), workspace=tmp_path / "workspace")


def test_a_model_that_does_not_bear_the_type(
    tmp_path: Path, model: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checklist, "examine", lambda *_, **__: ())
    kept = tmp_path / "workspace" / "verifications" / "release"
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=1")
    with pytest.raises(CacheCollapse, match=r"probe\.gguf: turbo4 makes its answers collapse"):
        _verify(tmp_path, server, str(model))
    found = records.read(kept / "verification.json", Verification)
    assert found.guard is not None
    assert (found.ok, found.guard.answer, found.guard.proposal) == (False, "collapses", "q8_0")
    assert "turbo4: **collapses**. Better: `q8_0`." in (kept / "report.md").read_text()
    assert "probe.gguf: turbo4: collapses (measured)" in as_text(found)
    assert guard.refusal(found.guard, config.load(environ={}))
    accepted = _verify(tmp_path, server, str(model), **{"verify.collapse": "accept"})
    assert accepted.ok
    assert accepted.guard is not None
    assert accepted.guard.answer == "collapses"


def test_a_model_that_is_not_there_is_told_before_any_work(tmp_path: Path, server: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        _verify(tmp_path, server, "/nowhere.gguf")
    assert not (tmp_path / "workspace").exists()


def test_without_a_chosen_type_the_cheapest_that_is_fine_is_taken(
    tmp_path: Path, model: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    write_release(release)
    (release / "lib" / "ollama").mkdir(parents=True)
    (release / "lib" / "ollama" / "llama-server").symlink_to(server)
    manifest = replace(records.read(release / "manifest.json", Release), cache_types=own())

    def chosen(**flags: str) -> str:
        settings = config.load(environ={}, flags={"verify.model": str(model), **flags})
        return examination.suited(Run(settings, Console()), manifest, release).config.deploy.kv_cache_type

    def noisy(*names: str) -> None:
        monkeypatch.setenv("TQ_TEST_NOISE", " ".join(f"{name}=1" for name in names))

    assert chosen() == next(iter(averages().values()))
    noisy("turbo3", "turbo2")
    assert chosen() == "turbo4"
    assert chosen(**{"deploy.kv_cache_type": "turbo2"}) == "turbo2"
    assert chosen(**{"verify.model": ""}) == standard(own())
    noisy(*(kind.name for kind in (*own(), *UPSTREAM) if kind.name != "f16"))
    assert chosen() == standard(own())
