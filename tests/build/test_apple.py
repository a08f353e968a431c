"""What a Mac lacks, named: Apple's programs are scripts that answer as recorded from the real ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from toolchain.build import apple, steps, tools
from toolchain.core.config import BuildConfig, load
from toolchain.core.errors import GpuUnavailable, MissingTool, Translated
from toolchain.host import doctor

CLANG = "Apple clang version 17.0.0 (clang-1700.0.13.5)"
# Of the licence there are two wordings, of Xcode 15 and before.
LICENCES = (
    "You have not agreed to the Xcode license agreements. Please run 'sudo xcodebuild -license' from within a Terminal "
    "window to review and agree to the Xcode and Apple SDKs license.",
    "Agreeing to the Xcode/iOS license requires admin privileges, please run “sudo xcodebuild -license” and then retry "
    "this command.",
)
NO_TOOLS = (
    "xcrun: error: invalid active developer path (/Library/Developer/CommandLineTools), missing xcrun at: "
    "/Library/Developer/CommandLineTools/usr/bin/xcrun"
)
STUB = "xcode-select: note: no developer tools were found at '/Applications/Xcode.app', requesting install."
SOUND = {
    "xcode-select": ("/Library/Developer/CommandLineTools", 0),
    "xcrun": (CLANG, 0),
    "sysctl": ("0", 0),
    "launchctl": ("Aqua", 0),
}

Answers = Mapping[str, tuple[str, int]]


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A PATH on which Apple's programs answer as on a sound Mac, or otherwise."""

    def answer(**changes: tuple[str, int]) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, (said, code) in (SOUND | {key.replace("_", "-"): value for key, value in changes.items()}).items():
            where = ">&2" if code else ""
            (folder / name).write_text(f"#!/bin/sh\ncat <<'END' {where}\n{said}\nEND\nexit {code}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.delenv("SSH_CONNECTION", raising=False)

    return answer


@pytest.fixture
def frameworks(tmp_path: Path) -> Callable[[str], Path]:
    """Apple's frameworks, whose Metal returns what the C expression says."""

    def make(device: str) -> Path:
        source = tmp_path / "metal.c"
        source.write_text(f"#include <stdlib.h>\nvoid * MTLCreateSystemDefaultDevice(void) {{ {device}; }}\n")
        for name in ("CoreGraphics", "Metal"):
            path = tmp_path / f"{name}.framework" / name
            path.parent.mkdir(exist_ok=True)
            subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)
        return tmp_path

    return make


def test_a_sound_mac(mac: Callable[..., None], frameworks: Callable[[str], Path]) -> None:
    mac()
    apple.require_tools()
    apple.require_metal(frameworks("return (void *) 1"))
    assert str(apple.session()) == "launchd's Aqua session"


@pytest.mark.parametrize("said", LICENCES)
def test_a_licence_that_is_not_agreed_to(mac: Callable[..., None], said: str) -> None:
    mac(xcrun=(said, 69))
    with pytest.raises(MissingTool, match="the licence of Xcode is not agreed to: ") as caught:
        apple.require_tools()
    assert caught.value.hint == "sudo xcodebuild -license accept"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xcode_select": ("xcode-select: error: unable to get active developer directory", 2)}, "names no folder"),
        ({"xcrun": (NO_TOOLS, 1)}, "xcrun clang ended with 1: xcrun: error: invalid active developer path"),
        ({"xcrun": (STUB, 0)}, "no developer tools were found"),
    ],
)
def test_no_developer_tools(mac: Callable[..., None], changes: dict[str, tuple[str, int]], words: str) -> None:
    mac(**changes)
    with pytest.raises(MissingTool, match="no developer tools: ") as caught:
        apple.require_tools()
    assert words in caught.value.message
    assert caught.value.hint == "xcode-select --install"


def test_rosetta(mac: Callable[..., None]) -> None:
    mac(sysctl=("1", 0))
    for require in (apple.require_tools, apple.require_metal):
        with pytest.raises(Translated, match="runs under Rosetta") as caught:
            require()
        assert "arm64" in caught.value.hint
    mac(sysctl=("sysctl: unknown oid 'sysctl.proc_translated'", 1))  # a Mac with an Intel chip
    assert not apple.translated()


@pytest.mark.parametrize(
    ("device", "words"),
    [("return NULL", "MTLCreateSystemDefaultDevice returned nil"), ("abort()", "Metal cannot be loaded: the process")],
)
def test_no_metal_in_a_daemon_by_ssh(
    mac: Callable[..., None],
    frameworks: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    words: str,
) -> None:
    mac(launchctl=("Background", 0))
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    with pytest.raises(GpuUnavailable) as caught:
        apple.require_metal(frameworks(device))
    context = "no Metal device in this context (an SSH session, in launchd's Background session): "
    assert caught.value.message.startswith(context + words)
    assert "at the screen" in caught.value.hint


def test_no_metal_at_all(mac: Callable[..., None], tmp_path: Path) -> None:
    mac()
    with pytest.raises(GpuUnavailable, match=r"Metal cannot be loaded: .*CoreGraphics"):
        apple.require_metal(tmp_path)


def test_the_doctor_and_a_build_name_it(mac: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Mac, whose programs these are; the frameworks are not here."""
    mac(xcrun=(LICENCES[0], 69), sysctl=("1", 0))
    monkeypatch.setattr("sys.platform", "darwin")
    named = {item.name: item for item in doctor.doctor(load(environ={}, flags={"build.compiler": "system"}))}
    assert [name for name in ("developer tools", "native process", "Metal") if named[name].ok] == []
    assert named["developer tools"].found.startswith("the licence of Xcode is not agreed to: You have not agreed")
    assert named["native process"].found == "Rosetta"
    assert "launchd's Aqua session" in named["Metal"].found
    kind, cc, _ = tools.compilers(BuildConfig(compiler="system"), Path("unused"))
    assert (kind, cc.ok, cc.hint) == ("system", False, "sudo xcodebuild -license accept")


def test_the_licence_in_the_output_of_a_step(tmp_path: Path) -> None:
    plan = steps.BuildPlan.__new__(steps.BuildPlan)
    assert "sudo xcodebuild -license accept" in steps._hint(plan, "compile", f"[1/9] Building C\n{LICENCES[0]}\n")
    assert "licence" not in steps._hint(plan, "compile", "error: no such file")
