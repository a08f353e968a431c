"""What ships where nobody named an Ollama: real repositories, in which releases come and go."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.series.conftest import MAIN_GO, TABLE_C, SeriesMaker, Upstream, make_series, upstream
from tests.tasks.test_command import inv
from toolchain import pipeline
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import NoReleaseHolds, SeriesDoesNotApply
from toolchain.core.records import to_json
from toolchain.core.run import Run
from toolchain.sources.newest import Newest, newest
from toolchain.stages import Deployment, Sources
from toolchain.text import as_text

__all__ = ["make_series", "upstream"]
MOVED = MAIN_GO.replace("func launch(", "func start(")


class Site:
    """An upstream of releases, and a series for it."""

    def __init__(self, upstream: Upstream, root: Path, folder: Path) -> None:
        self.upstream, self.root, self.folder = upstream, root, folder
        self.builds = [upstream.git("llama.cpp", "rev-parse", "HEAD")]

    def build(self, table: str) -> str:
        """One more build of llama.cpp; its name."""
        self.builds.append(self.upstream.commit("llama.cpp", {"table.c": table}, "build"))
        return f"b{len(self.builds)}"

    def release(self, tag: str, pin: str, main: str = MAIN_GO) -> None:
        files = {"LLAMA_CPP_VERSION": f"{pin}\n", "llama/compat/readme": f"{tag}\n", "main.go": main}
        self.upstream.commit("ollama", dict(files), tag)
        self.upstream.git("ollama", "tag", tag)

    def flags(self, **sources: str) -> dict[str, str]:
        return {
            "workspace": str(self.folder / "workspace"),
            "sources.llama_cpp": str(self.upstream.root / "llama.cpp"),
            "sources.ollama": str(self.upstream.root / "ollama"),
            "series.path": str(self.root),
            **{f"sources.{name}": value for name, value in sources.items()},
        }

    def run(self, **sources: str) -> Run:
        return Run(load(environ={}, flags=self.flags(**sources)), Console(json=True))

    def choose(self, **sources: str) -> tuple[str, str, list[tuple[str, str]]]:
        """Release and llama.cpp that are taken, and what was passed over."""
        chosen = pipeline.prepare_to_ship(self.run(**sources))
        passed = [(one.release, one.reason) for one in chosen.passed_over]
        return chosen.sources.ollama.describe, chosen.sources.llama_cpp.describe, passed


@pytest.fixture
def site(upstream: Upstream, make_series: SeriesMaker, tmp_path: Path) -> Site:
    site = Site(upstream, make_series(), tmp_path)
    site.release("v0.30.0", "b1")
    return site


def test_the_newest_that_holds_and_why_none_newer(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.release("v0.30.2", site.build(TABLE_C + "int more;\n"))
    site.release("v0.30.10", site.build("int gone;\n"))
    site.release("v0.31.0", "b1", MOVED)
    site.release("v0.32.0", "b9")
    site.release("v0.32.1", "v0.3.0")
    site.release("v0.33.0-rc1", "b2")
    site.upstream.commit("ollama", {"main.go": MAIN_GO + "// on\n"}, "main goes on")
    taken, llama_cpp, passed = site.choose()
    assert (taken, llama_cpp) == ("v0.30.2", "b2")
    assert passed == [
        ("v0.32.1", "pins v0.3.0, which is not in the mirror"),
        ("v0.32.0", "pins b9, which is not in the mirror"),
        ("v0.31.0", "1 of 5 edits do not apply: go/launch"),
        ("v0.30.10", "2 of 5 edits do not apply: types/traits, types/size"),
    ]
    said = capsys.readouterr().err
    assert all(f"passed over {release}: {reason}" in said for release, reason in passed)


def test_nothing_older_is_looked_at(site: Site) -> None:
    for number in range(1, 5):
        site.release(f"v0.31.{number}", "b1")
    asked: list[str] = []

    def complaint(found: Sources) -> str:
        asked.append(found.ollama.describe)
        return "a symbol of the contract is gone\nmore of it" if len(asked) == 1 else ""

    found = newest(site.run(), complaint)
    assert asked == ["v0.31.4", "v0.31.3"]
    assert [one.reason for one in found.passed_over] == ["a symbol of the contract is gone"]


def test_a_version_and_the_nearest_pin(site: Site) -> None:
    site.upstream.git("llama.cpp", "tag", "-a", "v0.3.0", "-m", "Release")
    site.release("v0.31.0", "v0.3.0")
    assert site.choose() == ("v0.31.0", "v0.3.0 (b1)", [])
    site.release("v0.32.0", "b9")
    assert site.choose()[0] == "v0.31.0"
    assert site.choose(nearest_pin="true") == ("v0.32.0", "b1", [])
    assert site.choose(llama_cpp_ref=site.builds[0]) == ("v0.32.0", "b1", [])


def test_what_was_named_is_taken_or_refused(site: Site) -> None:
    site.release("v0.31.0", "b1")
    site.release("v0.32.0", "b1", MOVED)
    assert site.choose(ollama_ref="v0.30.0") == ("v0.30.0", "b1", [])
    with pytest.raises(SeriesDoesNotApply, match="go/launch"):
        site.choose(ollama_ref="v0.32.0")
    site.upstream.commit("ollama", {"main.go": MAIN_GO + "// on\n"}, "main goes on")
    assert site.choose(ollama_ref="main")[0].startswith("v0.32.0-1-g")


def test_none_holds(site: Site) -> None:
    site.upstream.git("ollama", "tag", "-d", "v0.30.0")
    vendored = {"LLAMA_CPP_VERSION": None, "Makefile.sync": "FETCH_HEAD=b1\n", "llama/llama.cpp/llama.h": ""}
    site.upstream.commit("ollama", vendored, "the era before")
    for tag in ("v0.9.0", "v0.10.0"):
        site.upstream.git("ollama", "tag", tag)
    site.release("v0.30.0", "b9")
    with pytest.raises(NoReleaseHolds, match=r"v0\.30\.0 pins b9.*; v0\.9\.0 .* vendored era") as caught:
        site.choose()
    assert "--ollama-ref" in caught.value.hint


def test_no_release_at_all(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.upstream.git("ollama", "tag", "-d", "v0.30.0")
    site.upstream.git("ollama", "tag", "nightly")
    site.upstream.git("ollama", "tag", "v0.31.0-rc0")
    taken, _, passed = site.choose()
    assert (taken, passed) == ("v0.31.0-rc0", [])
    assert "no release tags; using HEAD" in capsys.readouterr().err


def test_offline_a_release_that_was_never_fetched_is_passed_over(site: Site) -> None:
    urls = {
        name: f"file://{site.upstream.root / where}" for name, where in (("ollama",) * 2, ("llama_cpp", "llama.cpp"))
    }
    for name in ("llama.cpp", "ollama"):
        site.upstream.git(name, "config", "uploadpack.allowFilter", "true")
        site.upstream.git(name, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert site.choose(**urls) == ("v0.30.0", "b1", [])
    site.release("v0.31.0", "b1", MAIN_GO + "// new\n")
    assert site.choose(**urls, ollama_ref="v0.30.0")[0] == "v0.30.0"
    taken, _, ((release, reason),) = site.choose(**urls, offline="true")
    assert (taken, release) == ("v0.30.0", "v0.31.0")
    assert "content" in reason
    assert site.choose(**urls) == ("v0.31.0", "b1", [])


def test_a_ship_tells_what_it_passed_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.release("v0.31.0", "b9")
    deployed = Deployment(
        prefix=site.folder, active="0-0", parent="", version="", pid=1, healthy=True, releases=("0-0",), reason=""
    )
    for name, result in (("build", SimpleNamespace(id="0-0")), ("verify", SimpleNamespace(ok=True))):
        monkeypatch.setattr(pipeline, name, lambda *_, result=result: result)
    monkeypatch.setattr(pipeline, "directory", lambda *_: site.folder)
    monkeypatch.setattr(pipeline, "install", lambda *_: deployed)
    shipped = pipeline.ship(site.run())
    assert shipped.ollama == "v0.30.0"
    said = [{"release": "v0.31.0", "reason": "pins b9, which is not in the mirror"}]
    assert json.loads(to_json(shipped))["passed_over"] == said
    assert as_text(shipped).splitlines()[-1] == "passed over v0.31.0: pins b9, which is not in the mirror"
    assert shipped.run == site.folder / "workspace" / "runs" / "0-0"
    (kept,) = (site.folder / "workspace" / "runs").glob("v0.30.0-*/sources.json")
    assert json.loads(kept.read_text())["ollama"]["describe"] == "v0.30.0"


@pytest.mark.slow
def test_the_command_line(site: Site, tmp_path: Path) -> None:
    site.upstream.git("ollama", "tag", "-d", "v0.30.0")
    site.release("v0.30.0", "b9")
    flags = [word for key, value in site.flags().items() for word in ("--set", f"{key}={value}")]
    done = inv("ship", "--json", *flags, cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (19, "NoReleaseHolds")
    assert isinstance(pipeline.prepare_to_ship(site.run(ollama_ref="v0.30.0", nearest_pin="true")), Newest)
