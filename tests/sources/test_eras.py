"""What differs between the eras is asked of them alone, so that a further one is its own module and a registration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, new
from toolchain import pipeline
from toolchain.build.pipeline import plan_of
from toolchain.core import config
from toolchain.core.console import Console
from toolchain.core.errors import EraNotServed, UnknownLayout
from toolchain.core.run import Run
from toolchain.sources import Repository, eras, recognise
from toolchain.sources.eras.era import Way, read_pin
from toolchain.stages import Checkout, Pin, Scratch, Sources, Target
from toolchain.upstream.surface import usage
from toolchain.upstream.surface.trees import LAYOUTS, FolderTree


class Invented:
    """An era that does not exist: llama.cpp as a folder of Ollama's, still run as llama-server."""

    name = "invented"
    marks = "llama.pin"
    targets: tuple[Target, ...] = ("ollama",)
    compat = patches = ""
    ways: frozenset[Way] = frozenset({"cgo", "programs"})
    native = eras.named("pinned").native
    engines = eras.named("pinned").engines
    layer_rules = True
    unserved = "which came later than the series"
    unbuilt = "nobody knows how"
    hint = "take an older Ollama"

    def pin(self, ollama: Repository, commit: str) -> str | None:
        content = ollama.read_blob(commit, self.marks)
        return None if content is None else read_pin(content.strip(), self.marks)

    def place(self, path: str) -> str:
        return f"third_party/{path}"

    def origin(self, place: str) -> str | None:
        return place.removeprefix("third_party/") if place.startswith("third_party/") else None


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Invented:
    era = Invented()
    monkeypatch.setattr(eras, "ERAS", (era, *eras.ERAS))
    return era


def _sources(era: str) -> Sources:
    def checkout(target: Target) -> Checkout:
        return Checkout(target=target, origin="", git_dir=Path("/nowhere"), commit="0" * 40, describe=f"{target} 1")

    pin = Pin(name="b1", commit="0" * 40, build=1, exact=True)
    return Sources(ollama=checkout("ollama"), llama_cpp=checkout("llama.cpp"), era=era, pin=pin)


def test_a_further_era_is_recognised_before_the_others(tmp_path: Path, third: Invented) -> None:
    repo = new(tmp_path / "repo")
    old = commit(repo, {"LLAMA_CPP_VERSION": "b7\n", "llama/compat/1.patch": ""})
    made = commit(repo, {"llama.pin": "b9\n"})
    for name in ("llama.pin", "LLAMA_CPP_VERSION"):
        (repo / name).unlink()
    bare = commit(repo, {"README": ""})
    repository = Repository.open(repo)
    found = recognise(repository, made)
    assert (found.era, found.pin) == (third, "b9")
    assert recognise(repository, old).era is eras.named("pinned")
    with pytest.raises(UnknownLayout, match=r"invented: llama\.pin; pinned: LLAMA_CPP_VERSION and .*; vendored:"):
        recognise(repository, bare)


def test_every_stage_asks_the_era(tmp_path: Path, third: Invented) -> None:
    found = _sources(third.name)
    run = Run(config=config.load(environ={}, flags={"workspace": str(tmp_path / "ws")}), console=Console())
    checked = pipeline.check_series(run, found)
    assert (checked.ok, checked.era, checked.edits) == (False, "invented", ())
    for attempt in (lambda: pipeline.require(checked), lambda: pipeline.render_series(run, found)):
        with pytest.raises(EraNotServed, match="belongs to the invented era, which came later") as refused:
            attempt()
        assert refused.value.hint == third.hint
    assert [target.target for target in pipeline.stock(found).targets] == ["ollama"]
    scratch = Scratch(
        root=tmp_path, ollama=tmp_path, llama_cpp=tmp_path, branch="", ollama_commit="", llama_cpp_commit=""
    )
    with pytest.raises(EraNotServed, match="invented era: nobody knows how"):
        plan_of(scratch, found, run.config, tmp_path)


def test_what_ollama_uses_is_looked_for_in_the_ways_of_the_era(tmp_path: Path, third: Invented) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm/run.go").write_text(
        'package llm\nimport "C"\n// llama-server\nvar x = C.llama_one("--flash-attn")\n'
    )
    (tmp_path / "llm/look.go").write_text('package llm\nvar y = dlsym("ggml_loaded")\n')
    found = {name: usage.find(FolderTree(tmp_path), eras.named(name)) for name in ("invented", "pinned", "vendored")}
    assert [use.text for use in found["invented"].symbols] == ["llama_one"]
    assert [use.text for use in found["pinned"].symbols] == ["ggml_loaded"]
    assert [use.text for use in found["vendored"].symbols] == ["llama_one"]
    assert [use.text for use in found["invented"].server] == ["--flash-attn"]
    assert found["vendored"].server == ()


def test_where_llama_cpp_lies_in_a_tree() -> None:
    """The places of Makefile.sync at v0.17.7."""
    pinned, vendored = eras.named("pinned"), eras.named("vendored")
    for path, there in (
        ("include/llama.h", "llama/llama.cpp/include/llama.h"),
        ("src/llama-graph.cpp", "llama/llama.cpp/src/llama-graph.cpp"),
        ("ggml", "ml/backend/ggml/ggml"),
        ("ggml/include/ggml.h", "ml/backend/ggml/ggml/include/ggml.h"),
        ("ggml-like/x", "llama/llama.cpp/ggml-like/x"),
    ):
        assert (pinned.place(path), vendored.place(path)) == (path, there)
        assert pinned.origin(path) == path
        assert vendored.origin(f"{there}/x") == f"{path}/x"
    assert vendored.origin("llama/llama.go") is None
    assert [layout.name for layout in LAYOUTS] == ["llama.cpp", "vendored Ollama"]
    assert dataclasses.asdict(LAYOUTS[1]) == {
        "name": "vendored Ollama",
        "llama": "llama/llama.cpp/include",
        "ggml": "ml/backend/ggml/ggml/include",
        "mtmd": "llama/llama.cpp/tools/mtmd",
        "sources": (
            "ml/backend/ggml/ggml/src",
            "llama/llama.cpp/src",
            "llama/llama.cpp/common",
            "llama/llama.cpp/tools/mtmd",
        ),
    }


def test_a_name_that_is_none() -> None:
    with pytest.raises(UnknownLayout, match="'steam' is not an era of Ollama") as caught:
        eras.named("steam")
    assert caught.value.hint == "known: pinned, vendored"


def test_an_era_is_past_only_when_no_older_one_is_served(third: Invented, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not eras.is_past(_sources(third.name))
    assert not eras.is_past(_sources("vendored"))
    monkeypatch.setattr(eras, "ERAS", (*eras.ERAS[1:], third))
    assert not eras.is_past(_sources("pinned"))
    assert eras.is_past(_sources(third.name))
