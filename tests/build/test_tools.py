from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.build import tools
from toolchain.core import config
from toolchain.core.errors import MissingTool
from toolchain.host import doctor
from toolchain.sources import command


def _program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose PATH is one empty folder, with no tools beside Python, no compiler chosen and no zig."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setattr(tools, "_has_zig", lambda: False)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return folder


def _full(folder: Path, *, without: str = "", **versions: str) -> None:
    for name in ("git", "cmake", "ninja", "go", "cc", "c++", "xcode-select"):
        if name != without:
            _program(folder, name, f"echo {name} version {versions.get(name, '99.1.2')}")


GO_MOD = "module example.org/m\n\ngo 1.26.0\n"


def _toolset(tmp_path: Path, compiler: str = "auto") -> tools.Toolset:
    settings = config.load(environ={}, flags={"build.compiler": compiler}).build
    return tools.toolset(settings, GO_MOD, tmp_path / "ws")


def test_a_full_machine_has_its_tools(bare: Path, tmp_path: Path) -> None:
    _full(bare)
    found = _toolset(tmp_path)
    assert found.kind == "system"
    assert found.cmake_variables == {"CMAKE_C_COMPILER": str(bare / "cc"), "CMAKE_CXX_COMPILER": str(bare / "c++")}
    assert found.versions()["go"] == "99.1.2"


@pytest.mark.parametrize("name", ["git", "cmake", "ninja", "go", "cc", "c++"])
def test_the_one_that_is_missing_is_named_with_the_way_to_get_it(bare: Path, tmp_path: Path, name: str) -> None:
    _full(bare, without=name)
    with pytest.raises(MissingTool) as caught:
        _toolset(tmp_path)
    assert caught.value.message.startswith(f"{name}: not found")
    assert "install" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "old"), [("cmake", "3.23.9"), ("ninja", "1.9.0"), ("go", "1.25.9"), ("git", "2.30.1")]
)
def test_one_that_is_too_old_is_refused(bare: Path, tmp_path: Path, name: str, old: str) -> None:
    _full(bare, **{name: old})
    with pytest.raises(MissingTool, match=f"{name} {old} .* is needed"):
        _toolset(tmp_path)


def test_a_stub_of_macos_is_no_git(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(bare, "xcode-select", "exit 2")
    monkeypatch.setattr(sys, "platform", "darwin")
    for path, stub in (("/usr/bin/git", True), ("/opt/homebrew/bin/git", False), ("", False)):
        command._is_stub.cache_clear()
        assert command._is_stub(path) is stub
    _program(bare, "xcode-select", "echo /Library/Developer/CommandLineTools")
    command._is_stub.cache_clear()
    assert not command._is_stub("/usr/bin/git")
    command._is_stub.cache_clear()


def test_one_that_does_not_run_counts_as_missing(bare: Path, tmp_path: Path) -> None:
    _full(bare)
    _program(bare, "ninja", "echo 1.12.0; exit 1")
    with pytest.raises(MissingTool, match="ninja"):
        _toolset(tmp_path)


def test_a_wheels_tool_goes_before_the_systems(bare: Path, tmp_path: Path) -> None:
    _full(bare)
    beside = _program(tmp_path / "venv", "cmake", "echo cmake version 4.0.1")
    assert _toolset(tmp_path).cmake.path == str(beside)


def test_the_compiler_of_the_environment_is_used(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _full(bare)
    chosen = _program(bare, "gcc-14", "echo gcc-14 14.2.0")
    monkeypatch.setenv("CC", "gcc-14")
    assert _toolset(tmp_path).cc.path == str(chosen)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingTool, match="cc: not found"):
        _toolset(tmp_path)


@pytest.mark.parametrize(
    ("compiler", "system", "kind"),
    [("auto", True, "system"), ("auto", False, "zig"), ("zig", True, "zig"), ("system", True, "system")],
)
def test_zig_stands_in_where_there_is_no_compiler(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, system: bool, kind: str
) -> None:
    """The zig here is a shell script that prints how it was called; the wrappers around it are the real ones."""
    _full(bare, without="" if system else "c++")
    python = _program(tmp_path / "with space", "python", 'echo "clang version 20.1.0 $*"')
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(tools, "_has_zig", lambda: True)
    found = _toolset(tmp_path, compiler)
    assert found.kind == kind
    if kind == "zig":
        said = subprocess.run([found.cxx.path, "-c", "a b.cc"], capture_output=True, text=True, check=True).stdout
        words = said.split("20.1.0 ")[1]
        assert words.startswith("-P -m ziglang c++ ")
        assert words.strip().endswith("-c a b.cc")
        assert ("-linux-gnu" in words) is (sys.platform == "linux")
        said = subprocess.run(
            [found.cmake_variables["CMAKE_AR"], "rc"], capture_output=True, text=True, check=True
        ).stdout
        assert said.split("20.1.0 ")[1].strip() == "-P -m ziglang ar rc"


def test_zig_is_asked_for_and_missing(bare: Path, tmp_path: Path) -> None:
    _full(bare)
    with pytest.raises(MissingTool) as caught:
        _toolset(tmp_path, "zig")
    assert "ziglang" in caught.value.hint


@pytest.mark.parametrize(
    ("go_mod", "needed"), [(GO_MOD, "1.26.0"), ("go 1.22\n", "1.22"), ("module go\n", ""), ("// go 1.1\n", "")]
)
def test_the_go_that_a_module_asks_for(go_mod: str, needed: str) -> None:
    assert tools.go_needed(go_mod) == needed


def test_doctor_lists_what_is_missing_on_a_bare_machine(bare: Path, tmp_path: Path) -> None:
    settings = config.load(
        environ={},
        flags={"workspace": str(tmp_path / "a" / "b"), "build.min_free_gb": 1000, "deploy.service_manager": "launchd"},
    )
    found = {finding.name: finding for finding in doctor.doctor(settings)}
    bad = {"git", "cmake", "ninja", "go", "cc", "c++", "disk", "manager"}
    assert bad <= {name for name, finding in found.items() if not finding.ok}
    assert all(found[name].hint for name in bad)
    assert found["python"].ok


def test_doctor_asks_the_configured_manager(bare: Path, tmp_path: Path) -> None:
    flags = {"workspace": str(tmp_path), "deploy.service_manager": "systemd"}
    found = {finding.name: finding for finding in doctor.doctor(config.load(environ={}, flags=flags))}
    assert (found["manager"].ok, found["manager"].found) == (False, "")
    assert "systemctl is not installed" in found["manager"].hint


def test_doctor_is_content_with_this_machine(tmp_path: Path) -> None:
    settings = config.load(environ={}, flags={"workspace": str(tmp_path), "build.min_free_gb": 0})
    found = {finding.name: finding for finding in doctor.doctor(settings)}
    assert all(found[name].ok for name in ("platform", "python", "git", "cmake", "ninja", "go", "cc", "c++", "disk"))
    assert found["go"].needed == ">= 1.26"
