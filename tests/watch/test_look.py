"""Looks at two real repositories that move between them."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.series.conftest import EDITS, TABLE_C, TYPES_H, SeriesMaker, Upstream
from tests.tasks.test_command import ROOT, inv
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.series import manifest
from toolchain.text import as_text
from toolchain.upstream.watch import UpstreamLook, look
from toolchain.upstream.watch.symbols import Watched

pytestmark = pytest.mark.slow

GGML_H = "enum ggml_type {\n    GGML_TYPE_F32 = 0,\n    // GGML_TYPE_TURBO9\n    GGML_TYPE_COUNT = 1,\n};\n"
ARG_CPP = "const std::vector<ggml_type> kv_cache_types = {\n    GGML_TYPE_F32,\n};\n"


class Site:
    """The little upstream with a pin, and a series for it."""

    def __init__(self, upstream: Upstream, root: Path, workspace: Path) -> None:
        self.upstream, self.root, self.workspace = upstream, root, workspace
        upstream.commit("llama.cpp", {"ggml/include/ggml.h": GGML_H, "common/arg.cpp": ARG_CPP}, "headers")
        self.release("v0.30.0", "b2")

    def release(self, tag: str, pin: str) -> None:
        self.upstream.commit("ollama", {"LLAMA_CPP_VERSION": f"{pin}\n", "llama/compat/readme": f"{tag}\n"}, tag)
        self.upstream.git("ollama", "tag", tag)

    def look(self, *, keep: bool = False) -> UpstreamLook:
        flags = {
            "sources.llama_cpp": str(self.upstream.root / "llama.cpp"),
            "sources.ollama": str(self.upstream.root / "ollama"),
            "sources.offline": "true",
            "workspace": str(self.workspace),
        }
        return look(Run(load(flags=flags), Console(json=True)), manifest.load(self.root), keep=keep)


@pytest.fixture
def site(upstream: Upstream, make_series: SeriesMaker, tmp_path: Path) -> Site:
    return Site(upstream, make_series(), tmp_path / "workspace")


def test_exactly_what_came(site: Site) -> None:
    first = site.look()
    assert (first.since, first.moved, first.exit_code) == ("", (), 0)
    assert [held.what for held in first.holding] == ["the newest Ollama and its pin b2"]
    again = site.look()
    assert (again.since != "", again.moved, again.exit_code) == (True, (), 0)
    assert "nothing new" in as_text(again)
    old = site.upstream.git("llama.cpp", "rev-parse", "HEAD")
    site.upstream.commit("llama.cpp", {"notes": "1\n"}, "aside")
    touched = site.upstream.commit("llama.cpp", {"table.c": TABLE_C + "int more;\n"}, "touches the table")
    site.upstream.git("llama.cpp", "tag", "b4")
    site.release("v0.31.0", "b9")
    found = site.look(keep=True)
    assert site.look(keep=True).moved == found.moved, "the state stays as it was"
    llama_cpp, ollama = found.moved
    assert (llama_cpp.old, llama_cpp.commits, llama_cpp.tags, llama_cpp.describe) == (old, 2, ("b4",), "b4")
    assert [one.id for one in llama_cpp.touching] == [touched]
    assert (ollama.commits, ollama.tags, ollama.pin, ollama.describe) == (1, ("v0.31.0",), ("b2", "b9"), "v0.31.0")
    assert [(held.what, held.holds) for held in found.holding] == [
        ("the newest Ollama and its pin b9 (b4 used instead)", True)
    ]
    assert found.exit_code == 80 | 1
    assert touched[:12] in as_text(found)
    assert (site.look().exit_code, site.look().exit_code) == (81, 0)


def test_what_our_sources_use_and_what_titles_speak_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = (Watched(file="types.h", symbol="kind::KIND_B"), Watched(file="gone.h", symbol="gone"))
    monkeypatch.setattr(import_module("toolchain.upstream.watch.look"), "watched", lambda _: symbols)
    site.look()
    site.upstream.commit("llama.cpp", {"types.h": TYPES_H + "// more\n"}, "a comment in a file of the contract")
    touched = site.upstream.commit("llama.cpp", {"types.h": TYPES_H.replace("KIND_B     = 1", "KIND_B = 7")}, "types")
    spoken = site.upstream.commit("llama.cpp", {"notes": "1\n"}, "metal : faster flash-attention")
    site.upstream.commit("llama.cpp", {"notes": "2\n"}, "kvcaches and metallic flash of attention")
    kv = site.upstream.commit("ollama", {"notes": "1\n"}, "size the KV cache")
    llama_cpp, ollama = site.look().moved
    assert [(touch.commit.id, touch.symbols) for touch in llama_cpp.symbols] == [(touched, ("kind::KIND_B",))]
    assert ([one.id for one in llama_cpp.worded], [one.id for one in ollama.worded]) == ([spoken], [kv])
    assert (ollama.symbols, len(llama_cpp.touching)) == ((), 2)


def test_the_report_names_symbols_and_titles(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = tuple(Watched(file="types.h", symbol=f"{number:02}::KIND_B") for number in range(14))
    monkeypatch.setattr(import_module("toolchain.upstream.watch.look"), "watched", lambda _: symbols)
    site.look()
    touched = site.upstream.commit("llama.cpp", {"types.h": TYPES_H.replace("KIND_B     = 1", "KIND_B = 7")}, "Metal")
    spoken = site.upstream.commit("llama.cpp", {"notes": "1\n"}, "kv_cache : less")
    lines = [line.strip() for line in as_text(site.look()).splitlines()]
    start = lines.index("1 commits that touch symbols that our sources use")
    assert lines[start + 1].startswith(touched[:12])
    assert lines[start + 2].endswith("11::KIND_B and 2 more")
    assert lines[lines.index("1 further commits by their titles") + 1].startswith(spoken[:12])


def test_a_contract_that_is_broken(upstream: Upstream, make_series: SeriesMaker, tmp_path: Path) -> None:
    edits = [*EDITS[:3], {**EDITS[3], "insert": "case KIND_NEW: return size_of(KIND_B);\n"}]
    root = make_series(edits)
    (root / "contract.txt").write_text("enumerator KIND_B | of kind | types.h\n")
    manifest.seal(root)
    site = Site(upstream, root, tmp_path / "workspace")
    assert [held.holds for held in site.look().holding] == [True]
    gone = {"types.h": TYPES_H.replace("    KIND_B     = 1,\n", ""), "table.c": TABLE_C.replace("[KIND_B]", "[1]")}
    culprit = upstream.commit("llama.cpp", dict(gone), "no KIND_B")
    found = site.look()
    assert [touch.symbols for touch in found.moved[0].symbols] == [("KIND_B",)]
    assert [(held.holds, held.failing) for held in found.holding] == [(True, ()), (False, ("KIND_B",))]
    assert re.search(rf"enum value KIND_B: .*{culprit[:12]}", found.holding[1].reason)
    assert found.exit_code == 80 | 5


def test_a_release_of_llama_cpp_that_ollama_pins(site: Site) -> None:
    site.look()
    site.upstream.git("llama.cpp", "tag", "-a", "v0.3.0", "-m", "Release")
    site.upstream.commit("llama.cpp", {"notes": "1\n"}, "aside")
    site.upstream.git("llama.cpp", "tag", "b3")
    site.release("v0.31.0", "release-v0.3.0")
    found = site.look()
    llama_cpp, ollama = found.moved
    assert (llama_cpp.releases, set(llama_cpp.tags)) == (("v0.3.0 (b2)",), {"b3", "v0.3.0"})
    assert (ollama.releases, ollama.pin) == (("v0.31.0",), ("b2", "release-v0.3.0"))
    assert [held.what for held in found.holding] == [
        "the newest Ollama and its pin release-v0.3.0",
        "the newest Ollama and llama.cpp",
    ]
    assert "releases: v0.3.0 (b2)" in as_text(found)


def test_a_rival_and_a_series_that_no_longer_holds(site: Site) -> None:
    site.look()
    types = GGML_H.replace("    // ", "    GGML_TYPE_TURBO4 = 1, GGML_TYPE_Q9 = 2, // ")
    site.upstream.commit("llama.cpp", {"ggml/include/ggml.h": types}, "types")
    found = site.look()
    assert (found.moved[0].types, found.moved[0].rivals, found.exit_code) == (("TURBO4", "Q9"), ("TURBO4",), 80 | 3)
    taken = ARG_CPP.replace("F32,", "F32, GGML_TYPE_Q9,")
    culprit = site.upstream.commit("llama.cpp", {"common/arg.cpp": taken, "table.c": "int gone;\n"}, "table")
    found = site.look()
    assert found.moved[0].cache_types == ("Q9",)
    assert [(held.what, held.failing) for held in found.holding] == [
        ("the newest Ollama and its pin b2", ()),
        ("the newest Ollama and llama.cpp", ("types/traits", "types/size")),
    ]
    assert culprit[:12] in found.holding[1].reason
    assert found.exit_code == 80 | 7
    assert site.look().exit_code == 80 | 4, "no news, but still broken"


def test_history_that_was_rewritten_and_a_tag_that_moved(site: Site) -> None:
    site.upstream.commit("llama.cpp", {"notes": "1\n"}, "to be dropped")
    dropped = site.upstream.git("llama.cpp", "rev-parse", "HEAD")
    site.look()
    site.upstream.git("llama.cpp", "reset", "-q", "--hard", "HEAD~1")
    site.upstream.commit("llama.cpp", {"notes": "2\n"}, "instead")
    site.upstream.git("ollama", "tag", "-d", "v0.30.0")
    site.upstream.commit("ollama", {"more": "1\n"}, "more")
    site.upstream.git("ollama", "tag", "v0.30.0")
    llama_cpp, ollama = site.look().moved
    assert (llama_cpp.rewritten, llama_cpp.old, llama_cpp.commits) == (True, dropped, 1)
    assert (ollama.rewritten, ollama.tags, ollama.moved_tags) == (False, (), ("v0.30.0",))


def test_a_damaged_state_is_a_first_look(site: Site) -> None:
    site.look()
    state = site.workspace / "watch" / "state.json"
    state.write_text(state.read_text()[:60])
    found = site.look()
    assert found.since == ""
    assert any("treated as a first look" in note for note in found.notes)
    assert site.look().since


def test_an_ollama_that_is_not_served(site: Site) -> None:
    site.upstream.commit("ollama", {"LLAMA_CPP_VERSION": None}, "another layout")
    found = site.look()
    assert [held.holds for held in found.holding] == [False]
    assert "no known layout of Ollama" in found.holding[0].reason
    assert found.exit_code == 80 | 4


def test_the_task(site: Site, tmp_path: Path) -> None:
    flags = ["--llama-cpp", str(site.upstream.root / "llama.cpp"), "--ollama", str(site.upstream.root / "ollama")]
    flags += ["--workspace", str(site.workspace), "--set", f"series.path={site.root}", "--set", "sources.offline=true"]
    site.look()
    site.upstream.commit("llama.cpp", {"notes": "1\n"}, "aside")
    done = inv("watch", "--json", *flags, cwd=tmp_path)
    assert done.returncode == 81
    assert json.loads(done.stdout)["moved"][0]["commits"] == 1


@pytest.mark.parametrize(
    ("code", "ends"), [(0, 0), (81, 0), (82, 82), (84, 84), (85, 85), (87, 87), (13, 13), (1, 1), (130, 130)]
)
def test_the_scheduled_workflow(tmp_path: Path, code: int, ends: int) -> None:
    """Its step runs as the shell would run it, on a stand-in for ./inv that ends with each code."""
    workflow = yaml.safe_load((ROOT / "templates/watch.yml").read_text())
    assert re.fullmatch(r"\S+( \S+){4}", workflow[True]["schedule"][0]["cron"])
    (step,) = [step for step in workflow["jobs"]["watch"]["steps"] if step.get("name") == "look"]
    (tmp_path / "inv").write_text(f'#!/bin/sh\necho "$@" > asked\necho {{}}\nexit {code}\n')
    (tmp_path / "inv").chmod(0o755)
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == ends
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "watch"
    known = inv("--help", "watch", cwd=tmp_path).stdout if code == 0 else ""
    assert all(word in known for word in asked if word.startswith("--")) or code
