from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from tests.build.tiny import Tiny
from tests.sources.gitrepo import commit
from toolchain.build import build, check, plan_of, platform_name, program_dir, release_dir, version_of
from toolchain.core.console import Console
from toolchain.core.errors import BuildFailed, ConfigError, DiskFull, MissingTool
from toolchain.stages import Release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, Release]:
    """One world that is built once; tests that change it build again."""
    tiny = Tiny(tmp_path_factory.mktemp("tiny"))
    return tiny, tiny.build()


def _says(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()


def _products(tiny: Tiny) -> dict[str, int]:
    files = (path for path in (tiny.workspace / "build").rglob("*") if path.is_file() and "stage" not in path.parts)
    return {path.name: path.stat().st_mtime_ns for path in files if path.suffix == ".o" or os.access(path, os.X_OK)}


def test_the_release_runs_and_says_what_it_is(shared: tuple[Tiny, Release]) -> None:
    tiny, release = shared
    folder = release_dir(tiny.workspace, release)
    assert check(folder) == release
    assert _says(folder / "bin/ollama") == "0.33.0-rc2-turbo1" == release.version
    assert _says(folder / "lib/ollama/llama-server") == "build 1, 4 types"
    assert not (folder / "share").exists(), "only the component llama-server is installed"
    licences = {path.relative_to(folder / "licenses").as_posix() for path in (folder / "licenses").rglob("*")}
    assert {"ollama.txt", "llama.cpp.txt", "llama.cpp/LICENSE-part"} <= licences
    links = [path for path in (folder / "lib/ollama").iterdir() if path.is_symlink()]
    assert len(links) == 2
    for name in ("copied", "llama-server"):  # out of the build folder, and by CMake's own installation
        assert str(tiny.workspace).encode() not in (folder / "lib/ollama" / name).read_bytes()
    moved = folder.rename(folder.with_name("moved"))
    assert _says(moved / "lib/ollama/llama-server") == "build 1, 4 types"
    moved.rename(folder)


def test_the_manifest_tells_where_it_came_from(shared: tuple[Tiny, Release]) -> None:
    tiny, release = shared
    assert tiny.scratch is not None
    assert (release.ollama_commit, release.llama_cpp_commit) == (
        tiny.scratch.ollama_commit,
        tiny.scratch.llama_cpp_commit,
    )
    assert (release.llama_cpp_build, release.platform) == (1, platform_name())
    assert [kind.name for kind in release.cache_types] == ["turbo4"]
    assert set(release.tools) == {"git", "cmake", "ninja", "go", "cc", "c++"}
    assert release.flags["OLLAMA_LLAMA_CPP_SKIP_COMPAT_PATCH"] == "ON"
    assert "-X=example.org/ollama/version.Version=0.33.0-rc2-turbo1" in release.flags["go -ldflags"]


def test_building_again_builds_nothing(shared: tuple[Tiny, Release]) -> None:
    tiny, release = shared
    before = _products(tiny)
    assert {"one.c.o", "two.c.o", "llama-server"} <= set(before)
    assert tiny.build() == release
    after = _products(tiny)
    assert {name for name in after if after[name] != before.get(name)} <= {"ollama"}  # go renews its time, no more


def test_a_changed_insert_rebuilds_what_depends_on_it(shared: tuple[Tiny, Release]) -> None:
    tiny, release = shared
    before = _products(tiny)
    other = tiny.build("7")
    changed = {name for name, time in _products(tiny).items() if before.get(name) != time}
    assert "two.c.o" in changed
    assert not {"one.c.o", "server.c.o"} & changed
    assert other.id != release.id
    assert _says(release_dir(tiny.workspace, other) / "lib/ollama/llama-server") == "build 1, 7 types"
    assert tiny.build().id == release.id, "the way back gives the very release from before"


def test_further_programs_stay_out_of_the_release(shared: tuple[Tiny, Release]) -> None:
    tiny, release = shared
    assert tiny.build(extra_targets=("llama-bench",)).id == release.id
    settings, sources, _, scratch = tiny.stages()
    folder = program_dir(plan_of(scratch, sources, settings, tiny.workspace))
    assert _says(folder / "llama-bench") == "build 1, 4 types"


def test_a_compile_error_shows_command_tail_and_log(shared: tuple[Tiny, Release]) -> None:
    tiny, _ = shared
    releases = sorted((tiny.workspace / "releases").iterdir())
    with pytest.raises(BuildFailed) as caught:
        tiny.build("no_such_name")
    message = caught.value.message
    assert "build step 'compile' ended with" in message
    assert "--target llama-server llama-quantize" in message
    assert "no_such_name" in message.split("last lines")[1]
    log = Path(message.split("log: ")[1].splitlines()[0])
    assert "no_such_name" in log.read_text()
    assert sorted((tiny.workspace / "releases").iterdir()) == releases


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


def test_a_missing_go_module_is_told_from_a_broken_program(tiny: Tiny) -> None:
    needs = {
        "go.mod": "module example.org/ollama\n\ngo 1.21\n\nrequire example.invalid/absent v1.0.0\n",
        "go.sum": "".join(f"example.invalid/absent v1.0.0{part} h1:{'A' * 43}=\n" for part in ("", "/go.mod")),
        "main.go": 'package main\n\nimport _ "example.invalid/absent"\n\nfunc main() {}\n',
    }
    commit(tiny.ollama, needs)
    with pytest.raises(BuildFailed, match="build step 'go'") as caught:
        tiny.build(sources__offline=True)
    assert "example.invalid/absent" in caught.value.message
    assert "go mod download" in caught.value.hint


def test_before_anything_starts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sources, rendered, scratch = tiny.stages()

    def attempt(**flags: object) -> None:
        build(scratch, sources, rendered, tiny.config(**flags), Console(), workspace=tiny.workspace)

    with pytest.raises(ConfigError, match=r"build\.preset: 'cuda_v9'") as preset:
        attempt(build__preset="cuda_v9")
    assert "cpu, darwin" in preset.value.hint
    with pytest.raises(DiskFull, match="GB free"):
        attempt(build__min_free_gb=1000)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingTool, match=r"cc: not found"):
        attempt(build__compiler="system")
    assert not (tiny.workspace / "build").exists()


@pytest.mark.parametrize(
    ("describe", "version"),
    [
        ("v0.33.0-rc2", "0.33.0-rc2-turbo1"),
        ("v0.33.0-5-gabc1234", "0.33.0-5-gabc1234-turbo1"),
        ("abc1234", "0.0.0-abc1234-turbo1"),
    ],
)
def test_the_version_is_upstreams_and_our_suffix(tiny: Tiny, describe: str, version: str) -> None:
    settings, sources, *_ = tiny.stages()
    named = dataclasses.replace(sources, ollama=dataclasses.replace(sources.ollama, describe=describe))
    assert version_of(named, settings) == version
