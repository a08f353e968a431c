"""./inv itself: which Python it takes, what it never runs, and how it makes .venv. Copies of it, without a network."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)] or ["sh"]
SHOW = "import sys\nprint(sys.argv[1:], sys.flags.isolated)\nsys.exit(5)\n"
"""in place of the set-up: its arguments, and an end"""


class Mac:
    """A checkout in `folder`, and a Mac's folders beside it: ./inv's own paths there lead into `folder`/mac."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.root, self.ran = folder / "check out", folder / "mac", folder / "ran"
        (self.checkout / "toolchain/core").mkdir(parents=True)
        text = (ROOT / "inv").read_text()
        for place in ("/opt/homebrew", "/usr/local", "/Library/Frameworks", "/usr/bin/"):
            assert place in text
            text = text.replace(place, f"{self.root}{place}")
        (self.checkout / "inv").write_text(text)
        for lock in ("requirements.lock", "requirements-zig.lock"):
            (self.checkout / lock).touch()
        (self.checkout / "toolchain/core/virtualenv.py").write_text(SHOW)
        (self.root / "usr/bin").mkdir(parents=True)
        for tool in ("basename", "cat", "cksum", "cut", "dirname", "readlink", "sed", "sort", "tr"):
            (self.root / "usr/bin" / tool).symlink_to(str(shutil.which(tool)))
        self.program("/usr/bin/uname", "echo Darwin")
        self.program("/usr/bin/xcode-select", "exit 2")
        for name in ("python3", "git", "clang++", "c++"):
            self.program(f"/usr/bin/{name}", "echo a dialogue opened; exit 1")
        self.program("/opt/homebrew/bin/git", "exit 0")

    def program(self, path: str, body: str) -> Path:
        """A shell script; that it ran is written down."""
        made = Path(f"{self.root}{path}")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(f'#!/bin/sh\necho "$0" >>"{self.ran}"\n{body}\n')
        made.chmod(0o755)
        return made

    def python(self, path: str) -> Path:
        """A Python that is supported, whatever its name."""
        return self.program(path, f'exec {sys.executable} "$@"')

    def inv(self, *words: str, shell: str = "sh", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run it as launchd and MDM do: no HOME, and nothing but the system's folder on PATH."""
        self.ran.unlink(missing_ok=True)
        argv = [shutil.which(shell) or shell, str(self.checkout / "inv"), *words]
        environ = {"PATH": f"{self.root}/usr/bin", **environ}
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)

    def chosen(self) -> str:
        """The Python that ran last, which is the one that set up."""
        return self.ran.read_text().splitlines()[-1].removeprefix(str(self.root))


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_bare_path_finds_what_installers_left(mac: Mac, shell: str) -> None:
    mac.python("/Library/Frameworks/Python.framework/Versions/3.12/bin/python3.12")
    mac.python("/opt/homebrew/bin/python3.11")
    mac.python("/opt/homebrew/bin/python3.15")
    done = mac.inv("--list", shell=shell)
    assert done.returncode == 5, done.stderr
    assert mac.chosen().endswith("/3.12/bin/python3.12")
    arguments, isolated = done.stdout.rsplit(" ", 1)
    assert isolated.strip() == "1"
    assert "requirements-zig.lock" in arguments  # no compiler without developer tools
    mac.python("/usr/local/bin/python3.14")
    mac.inv(shell=shell)
    assert mac.chosen() == "/usr/local/bin/python3.14"


@pytest.mark.parametrize("place", ["pyenv/versions/3.13.9/bin", "uv/python/cpython-3.13.1-macos-aarch64-none/bin"])
def test_pythons_of_pyenv_and_uv(mac: Mac, place: str) -> None:
    mac.python(f"/home/{place}/python3.13")
    home = f"{mac.root}/home"
    assert mac.inv(HOME=home, PYENV_ROOT=f"{home}/pyenv", XDG_DATA_HOME=home).returncode == 5
    assert mac.chosen() == f"/home/{place}/python3.13"


def test_apples_stubs_never_run(mac: Mac) -> None:
    mac.program("/usr/local/bin/python3.14", "exec /usr/bin/python3").unlink()
    Path(f"{mac.root}/usr/local/bin/python3.14").symlink_to(f"{mac.root}/usr/bin/python3")
    shim = mac.program("/pyenv/shims/python3.13", f"exec {mac.root}/usr/bin/python3")
    mac.python("/opt/homebrew/bin/python3.11")
    path = f"{shim.parent}:{mac.root}/usr/bin"
    assert mac.inv("test", PATH=path).returncode == 5
    assert mac.chosen() == "/opt/homebrew/bin/python3.11"
    ran = {name.removeprefix(str(mac.root)) for name in mac.ran.read_text().splitlines()}
    assert ran == {"/usr/bin/uname", "/usr/bin/xcode-select", "/opt/homebrew/bin/python3.11"}


def test_without_a_git_it_goes_on_and_no_stub_runs(mac: Mac) -> None:
    mac.python("/opt/homebrew/bin/python3.11")
    (mac.root / "opt/homebrew/bin/git").unlink()
    assert mac.inv("doctor").returncode == 5
    assert f"{mac.root}/usr/bin/git" not in mac.ran.read_text()


def test_what_is_asked_for_is_taken_or_refused(mac: Mac) -> None:
    mac.python("/opt/homebrew/bin/python3.13")
    other = mac.python("/own/python")
    assert mac.inv(TURBOQUANT_PYTHON=str(other)).returncode == 5
    assert mac.chosen() == "/own/python"
    for unusable in (mac.program("/old/python", "exit 1"), mac.root / "nowhere", mac.root / "usr/bin/python3"):
        done = mac.inv(TURBOQUANT_PYTHON=str(unusable))
        assert done.returncode == 7
        assert str(unusable) in done.stderr


def test_none_at_all(mac: Mac) -> None:
    text = (mac.checkout / "inv").read_text()
    (mac.checkout / "inv").write_text(text.replace("oldest=11\nnewest=14\n", "oldest=71\nnewest=74\n"))
    done = mac.inv()
    assert done.returncode == 7
    assert "no Python 3.71 to 3.74 was found" in done.stderr


def test_the_range_is_that_of_the_project() -> None:
    oldest, newest = re.findall(r"^(?:oldest|newest)=(\d+)$", (ROOT / "inv").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">=3.{oldest},<3.{int(newest) + 1}"


class Checkout:
    """A small checkout whose .venv gets one package, out of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "check out"
        (self.folder / "toolchain/core").mkdir(parents=True)
        for name in ("inv", "toolchain/core/virtualenv.py"):
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / "tasks.py").write_text("def start():\n    import small\n    print(small.VERSION)\n")
        (self.folder / "requirements-zig.lock").touch()
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        (folder / "pip.conf").write_text(f"[install]\nno-index = true\nfind-links = {self.wheels}\n")
        self.environ = {
            "PATH": os.environ["PATH"],
            "TURBOQUANT_PYTHON": sys.executable,
            "TURBOQUANT_PIP_CONFIG": str(folder / "pip.conf"),
            "PIP_INDEX_URL": "http://127.0.0.1:9/nowhere",
            "PIP_REQUIRE_VIRTUALENV": "nonsense",
            "PYTHONHOME": "/nowhere",
            "PYTHONPATH": "/nowhere",
        }
        self.lock("1.0")

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def lock(self, version: str, *, available: bool = True) -> None:
        """Have the lock want another version."""
        wheel, info = self.wheels / f"small-{version}-py3-none-any.whl", f"small-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("small.py", f"VERSION = {version!r}\n")
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/entry_points.txt", "[console_scripts]\nsmall = tasks:start\n")
            file.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.folder / "requirements.lock").write_text(f"small=={version} --hash=sha256:{digest}\n")
        if not available:
            wheel.unlink()

    def start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [self.folder / "inv"], env=self.environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def inv(self) -> tuple[int, str, str]:
        with self.start() as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def beside(self) -> set[str]:
        """What there is of environments."""
        return {path.name for path in self.folder.glob(".venv*")}


def test_the_current_folder_has_no_influence(tmp_path: Path) -> None:
    checkout, here = tmp_path / "checkout", tmp_path / "here"
    (checkout / ".venv/bin").mkdir(parents=True)
    (here / "toolchain").mkdir(parents=True)
    shutil.copy(ROOT / "inv", checkout)
    (checkout / "tasks.py").write_text(
        "import json, sys\ndef start():\n    print(json.__file__, __file__, sys.argv[1:])\n"
    )
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    for lock in ("requirements.lock", "requirements-zig.lock"):
        (checkout / lock).touch()
    for module in ("tasks.py", "json.py", "os.py", "yaml.py", "toolchain/__init__.py"):
        (here / module).write_text(f"open({str(here / 'was-run')!r}, 'w')\n")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(here)}
    locks = ["requirements.lock", *(["requirements-zig.lock"] if _wants_zig(checkout, env) else [])]
    sums = subprocess.run(["cksum", *locks], cwd=checkout, capture_output=True, text=True, check=True).stdout
    (checkout / ".venv/.stamp").write_text(f"{checkout.resolve()}\n{sums}")
    done = subprocess.run([checkout / "inv", "a", "b"], cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(checkout.resolve() / "tasks.py") in done.stdout
    assert done.stdout.endswith("['a', 'b']\n")
    assert not (here / "was-run").exists()


def _wants_zig(checkout: Path, env: dict[str, str]) -> bool:
    """Whether ./inv adds its own compiler on this machine: which locks it hands to the set-up."""
    (checkout / "toolchain/core").mkdir(parents=True)
    (checkout / "toolchain/core/virtualenv.py").write_text(SHOW)
    return "requirements-zig.lock" in subprocess.run([checkout / "inv"], env=env, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_the_environment_stands_until_another_one_does(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    both = [checkout.start(), checkout.start()]  # on a fresh checkout
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "1.0\n"), err
    script = (checkout.venv / "bin/small").read_text()
    assert f"{checkout.venv}/bin/python" in script
    assert ".venv.new" not in script + (checkout.venv / "pyvenv.cfg").read_text()
    whole = {".venv", ".venv.lock"}
    assert checkout.beside() == whole

    checkout.lock("2.0", available=False)
    code, _, err = checkout.inv()
    assert code == 7
    assert "could not be installed" in err
    assert "Traceback" not in err
    assert checkout.beside() == whole
    assert _version(checkout) == "1.0"

    checkout.lock("3.0")
    for number, left in ((signal.SIGINT, set()), (signal.SIGTERM, set()), (signal.SIGKILL, {".venv.new"})):
        process = checkout.start()
        while not (checkout.folder / ".venv.new/bin/python").exists():
            time.sleep(0.005)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        assert process.returncode in (-number, 128 + number)
        deadline = time.monotonic() + 20  # the shell may end before the set-up has cleaned up
        while checkout.beside() != whole | left and time.monotonic() < deadline:
            time.sleep(0.02)
        assert checkout.beside() == whole | left
        assert _version(checkout) == "1.0"
    checkout.venv.rename(checkout.folder / ".venv.old")  # as after a kill between the two renames
    assert checkout.inv()[:2] == (0, "3.0\n")
    assert checkout.beside() == whole

    checkout.lock("4.0")
    source = checkout.folder / "toolchain/core/virtualenv.py"
    swap = "                place.rename(old)\n"
    assert source.read_text().count(swap) == 1
    end = "            os.kill(os.getpid(), signal.SIGTERM)\n"
    source.write_text(source.read_text().replace(swap, swap + end))
    assert checkout.inv()[0] == 128 + signal.SIGTERM
    assert checkout.beside() == whole
    assert _version(checkout) == "3.0"


@pytest.mark.slow
def test_a_link_is_followed(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.venv.symlink_to("../else where/env")
    code, _, err = checkout.inv()
    assert code == 7
    assert "whose folder does not exist" in err
    (tmp_path / "else where").mkdir()
    assert checkout.inv()[:2] == (0, "1.0\n")
    assert checkout.venv.is_symlink()
    there = tmp_path / "else where/env"
    assert f"{there}/bin/python" in (there / "bin/small").read_text()
    stamp = (there / ".stamp").stat()
    assert checkout.inv()[:2] == (0, "1.0\n")
    assert (there / ".stamp").stat() == stamp
    (there / "bin/python").unlink()  # as after an upgrade of Homebrew's Python
    assert checkout.inv()[:2] == (0, "1.0\n")


def _version(checkout: Checkout) -> str:
    done = subprocess.run(
        [checkout.venv / "bin/python", "-c", "import small; print(small.VERSION)"], capture_output=True, text=True
    )
    return done.stdout.strip()
