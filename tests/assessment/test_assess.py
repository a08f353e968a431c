"""The whole assessment on the miniature upstream and forks of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fork.world import commit, untouched
from tests.memory import models
from tests.shared import Miniatures
from tests.sources.gitrepo import git
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, ModelInvalid, NotARepository, UnknownRevision, Unrelated
from toolchain.core.records import read, to_json
from toolchain.core.run import Run
from toolchain.rehearsal.miniature import Miniature
from toolchain.text import as_text
from toolchain.upstream.assessment import assess, save
from toolchain.upstream.assessment.assessment import Assessment

pytestmark = pytest.mark.slow

BORN = datetime(2026, 1, 1, tzinfo=UTC)
"""when all of the miniature's commits were made"""
METAL = "ggml/src/ggml-metal/ggml-metal.metal"
_TURBO = {
    "ggml/src/ggml-turboquant.c": "int turbo;\n",
    METAL: "kernel void kernel_set_rows_turbo4() { }\n",
    "ggml/src/ggml-metal/ggml-metal-device.m": "case GGML_TYPE_TURBO4_0: return true;\n",
}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Miniature:
    return miniatures.plain(tmp_path_factory.mktemp("miniature"))


@pytest.fixture
def fork(miniature: Miniature, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", "--shared", str(miniature.llama_cpp), "fork")
    return tmp_path / "fork"


def _assess(
    miniature: Miniature,
    tmp_path: Path,
    fork: str = "",
    *,
    days: float = 5,
    platform: str = "linux",
    model: str = "",
    ram: float = 0.0,
    branch: str = "",
    **settings: str,
) -> Assessment:
    flags = {
        "workspace": str(miniature.ollama.parent / "workspace"),  # one for all: what was compiled is found again
        "sources.ollama": str(miniature.ollama),
        "sources.llama_cpp": str(miniature.llama_cpp),
        "fork.origin": fork,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    run = Run(config=load(environ={}, flags=flags), console=Console())
    now = (BORN + timedelta(days=days)).isoformat()
    return assess(run, branch=branch, now=now, platform=platform, model=model, ram=ram)


def test_without_a_fork_it_is_the_series(miniature: Miniature, tmp_path: Path) -> None:
    found = _assess(miniature, tmp_path)
    assert (found.decision, found.confidence) == ("our series", "high")
    assert {name for name, gate in found.gates.items() if gate.status == "not asked"} == {
        *("freshness", "conflicts", "metal", "api")
    }
    assert found.gates["pin"].status == found.gates["series"].status == "pass"


def test_the_age_of_a_fork_decides(miniature: Miniature, fork: Path, tmp_path: Path) -> None:
    commit(fork, _TURBO, "turbo types", days=0)
    git(tmp_path, "clone", "--quiet", "--shared", str(miniature.llama_cpp), "upstream")
    upstream, born = tmp_path / "upstream", git(miniature.llama_cpp, "rev-parse", "HEAD")
    commit(upstream, {"README.md": "later"}, "later", days=(datetime(2026, 8, 1, tzinfo=UTC) - BORN).days - 60)
    settings: dict[str, Any] = {"sources__llama_cpp": str(upstream), "sources__llama_cpp_ref": born}
    before = untouched(fork), untouched(miniature.llama_cpp)
    for days, decision in ((5, "build the fork"), (20, "cherry-pick"), (40, "our series")):
        found = _assess(miniature, tmp_path, str(fork), days=days, **settings)
        assert found.decision == decision
        assert found.branch == "main"
        assert found.gates["metal"].status == "pass"
        assert found.gates["conflicts"].status == "pass"
        assert found.gates["freshness"].evidence["age_days"] == days
    assert (untouched(fork), untouched(miniature.llama_cpp)) == before


def test_conflicts_in_the_cache_stop_even_a_fresh_fork(miniature: Miniature, fork: Path, tmp_path: Path) -> None:
    cache, content = "src/llama-kv-cells.cpp", "one\ntwo\nthree\n"
    git(tmp_path, "clone", "--quiet", "--shared", str(miniature.llama_cpp), "upstream")
    upstream = tmp_path / "upstream"
    commit(upstream, {cache: content}, "a cache", days=0)
    git(fork, "pull", "--quiet", str(upstream), "main")
    commit(fork, {**_TURBO, cache: f"theirs\n{content}"}, "turbo types", days=0)
    onto = commit(upstream, {cache: f"ours\n{content}"}, "meanwhile", days=0)
    settings: dict[str, Any] = {"sources__llama_cpp": str(upstream), "sources__llama_cpp_ref": onto}
    now = (datetime(2026, 8, 1, tzinfo=UTC) - BORN).days
    found = _assess(miniature, tmp_path, str(fork), days=now + 1, **settings)
    assert found.decision == "our series"
    assert found.gates["conflicts"].status == "fail"
    assert "conflicts in core KV cache" in " ".join(found.reasons)
    # the same again comes out of the workspace, and is the same
    again = _assess(miniature, tmp_path, str(fork), days=now + 1, **settings)
    assert again.conflicts is not None
    assert found.conflicts is not None
    assert again.conflicts.outcomes == found.conflicts.outcomes


def test_a_fork_without_a_common_commit_gets_a_report_and_a_decision(
    miniature: Miniature, fork: Path, tmp_path: Path
) -> None:
    git(fork, "checkout", "--quiet", "--orphan", "squash")
    commit(fork, _TURBO, "all of it", days=0)
    git(fork, "branch", "--force", "main", "squash")
    found = _assess(miniature, tmp_path, str(fork), branch="squash", days=20)
    assert found.decision == "our series"
    assert any("shares no commit" in reason for reason in found.reasons)
    assert {name: found.gates[name].status for name in ("freshness", "conflicts", "metal")} == {
        **{"freshness": "unknown", "conflicts": "unknown", "metal": "pass"}
    }
    assert found.gates["freshness"].evidence["nearest"] == git(miniature.llama_cpp, "rev-list", "HEAD").split()[-1]
    assert "which is itself 20.0 days old here" in found.gates["freshness"].summary
    assert found.gates["api"].status != "not asked"
    assert "nearest by content" in save(found, tmp_path / "out").read_text()
    assert as_text(found).startswith("DECISION: our series")


def test_a_series_that_does_not_hold_and_no_fork_is_to_wait(miniature: Miniature, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", str(miniature.llama_cpp), "upstream")
    onto = commit(tmp_path / "upstream", {"ggml/include/ggml.h": "int nothing;\n"}, "a great cleanup", days=0)
    found = _assess(miniature, tmp_path, sources__llama_cpp=str(tmp_path / "upstream"), sources__llama_cpp_ref=onto)
    assert found.decision == "wait"
    assert found.gates["series"].status == "fail"


def test_a_mac_needs_metal(miniature: Miniature, fork: Path, tmp_path: Path) -> None:
    commit(fork, {**_TURBO, METAL: "// nothing\n"}, "turbo types for the CPU", days=0)
    found = _assess(miniature, tmp_path, str(fork), platform="macos")
    assert found.gates["metal"].status == "fail"
    assert found.decision not in ("build the fork", "cherry-pick")
    assert _assess(miniature, tmp_path, str(fork), platform="linux").decision == "build the fork"


def test_the_page_stands_by_itself_and_escapes(miniature: Miniature, fork: Path, tmp_path: Path) -> None:
    git(fork, "switch", "--quiet", "--create", "turbo<b>4")
    commit(fork, _TURBO, "turbo types", days=0)
    found = _assess(miniature, tmp_path, str(fork))
    page = save(found, tmp_path / "out").read_text()
    assert found.branch == "turbo<b>4"
    assert "turbo&lt;b&gt;4" in page
    assert "<b>4" not in page
    assert not re.search(r"""(src|href)=|url\(|<script""", page)
    assert found.decision in page
    kept = json.loads((tmp_path / "out/assessment.json").read_text())
    assert {"decision", "reasons", "gates", "seconds"} <= kept.keys()
    assert to_json(read(tmp_path / "out/assessment.json", Assessment)) == to_json(found)
    shown = as_text(found)
    assert shown.startswith("DECISION: build the fork")
    for name in found.gates:
        assert name in shown


def test_the_contexts_of_a_model(miniature: Miniature, tmp_path: Path) -> None:
    model = models.write(tmp_path / "model.gguf", models.gemma3_27b(), data=False)
    large = _assess(miniature, tmp_path, model=str(model), ram=36.0).gates["memory"]
    assert large.status == "pass"
    assert large.evidence["largest_context"]["f16"] > 0
    small = _assess(miniature, tmp_path, model=str(model), ram=4.0).gates["memory"]
    assert small.status == "fail"
    with pytest.raises(ModelInvalid):
        _assess(miniature, tmp_path, model=str(tmp_path / "none.gguf"))


def test_bad_input(miniature: Miniature, fork: Path, tmp_path: Path) -> None:
    with pytest.raises(NotARepository):
        _assess(miniature, tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="--platform amiga"):
        _assess(miniature, tmp_path, platform="amiga")
    with pytest.raises(Unrelated):
        _assess(miniature, tmp_path, str(miniature.ollama))
    run = Run(
        config=load(
            environ={},
            flags={
                "workspace": str(miniature.ollama.parent / "workspace"),
                "sources.ollama": str(miniature.ollama),
                "sources.llama_cpp": str(miniature.llama_cpp),
                "fork.origin": str(fork),
            },
        ),
        console=Console(),
    )
    with pytest.raises(UnknownRevision, match="no branch 'gone'"):
        assess(run, branch="gone")
    with pytest.raises(ConfigError, match="--now 'soon' is not a date"):
        assess(run, now="soon")
