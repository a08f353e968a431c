"""The shim, the plist and the environment file: what a shell and an XML parser make of them."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import string
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.build import modes
from toolchain.build import release as built
from toolchain.core import records, variables
from toolchain.core.cachetypes.table import UPSTREAM
from toolchain.core.config import DeployConfig, load
from toolchain.core.errors import ConfigError, ReleaseInvalid
from toolchain.deploy import environment, restorepoint, shim, store
from toolchain.deploy.prefix import Prefix
from toolchain.service import account, placement, propertylist
from toolchain.service.manager import Definition
from toolchain.service.units.ollama import OllamaUnit
from toolchain.stages import Release

from .site import TURBO, Site

_line = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=40)
_path = _line.filter(lambda text: "\0" not in text).map(lambda text: Path("/") / f"a{text}")


def _shim(prefix: Prefix) -> bytes:
    manager = placement.connect(DeployConfig(domain="system"), ("/bin/false",), {}, "")
    return shim.render(prefix, manager, DeployConfig())


def _plist(prefix: Prefix, *, label: str, home: Path, user: str = "") -> bytes:
    definition = Definition(program=prefix.shim, log=prefix.logs / "ollama.log")
    return propertylist.property_list(definition, label=label, home=home, user=user)


def _environment(release: Release, config: DeployConfig) -> str:
    return environment.render(OllamaUnit().environment(release, config))


def _run_shim(folder: Path, text: str, shell: str = "/bin/sh") -> subprocess.CompletedProcess[bytes]:
    """Run the rendered shim over a release whose ollama prints its arguments and environment."""
    return subprocess.run(
        [shell, _installed_shim(folder, text)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )


def _installed_shim(folder: Path, text: str) -> Path:
    prefix = Prefix(folder / 'it\'s a $(prefix) `x` "y"')
    release = prefix.releases / "one"
    (release / "bin").mkdir(parents=True)
    (release / "environment").write_bytes(text.encode())
    (release / "bin/ollama").write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\nenv -0\n')
    (release / "bin/ollama").chmod(0o755)
    prefix.current.symlink_to("releases/one")
    prefix.shim.parent.mkdir()
    prefix.shim.write_bytes(_shim(prefix))
    return prefix.shim


@settings(max_examples=15, deadline=None)
@given(_line, _line)
def test_the_shim_hands_every_value_over_as_it_stands(first: str, second: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = _run_shim(Path(folder), f"# a remark\n\nA_1={first}\nB={second}")  # no newline at the end either
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split(b"\n", 2)
    assert lines[0].endswith(b"/releases/one/bin/ollama")  # resolved, not through `current`
    assert lines[1] == b"serve"
    variables = set(lines[2].split(b"\0"))
    assert {b"A_1=" + first.encode(), b"B=" + second.encode()} <= variables


_names = st.from_regex(r"(OLLAMA|LLAMA|GGML|X)_[A-Z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: name not in OllamaUnit.variables.settings and name not in OllamaUnit.variables.kinds
)
_values = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=60) | st.sampled_from(
    [
        " a ",
        "$HOME `id` $(id)",
        "'\"\\",
        "\\n",
        "a=b",
        "#",
        "*",
        "~",
        "-n",
        "e\u0301",
        "\U0001f980",
        "\ufeff",
    ]
)


@pytest.mark.parametrize("shell", [path for name in ("sh", "dash", "bash") if (path := shutil.which(name))])
@settings(max_examples=8, deadline=None)
@given(st.dictionaries(_names, _values, min_size=1, max_size=30))
def test_every_value_that_is_accepted_arrives(shell: str, further: dict[str, str]) -> None:
    config = load(environ={}, flags={f"deploy.environment.{name}": value for name, value in further.items()})
    release = Release(
        id="", version="", created="", platform="", ollama_commit="", llama_cpp_commit="", llama_cpp_build=1,
        series_sha256="", cache_types=TURBO, tools={}, flags={}, files={},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        text = _environment(release, config.deploy)
        done = _run_shim(Path(name), text, shell)
        (Path(name) / "environment").write_bytes(text.encode())
        read = environment.read(Path(name))
    assert done.returncode == 0, done.stderr
    arrived = dict(one.split(b"=", 1) for one in done.stdout.split(b"\n", 2)[2].split(b"\0") if one)
    assert further.items() <= read.items()
    for key, value in read.items():
        assert arrived[key.encode()] == value.encode()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_shells_own_variables_are_refused_or_arrive(tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-c", "compgen -v; declare -r"], capture_output=True, text=True, check=True)
    names = {*re.findall(r"^[A-Z][A-Z0-9_]*$", done.stdout, re.MULTILINE), "MAIL", "FUNCNEST", "LC_ALL", "COMP_WORDS"}
    assert {"UID", "SHLVL", "IFS"} <= names
    accepted = {}
    for name in names:
        try:
            variables.check({name: "7"})
            accepted[name] = "7"
        except ConfigError:
            continue
    assert "UID" not in accepted
    done_ = _run_shim(tmp_path, environment.render(accepted), "bash")
    assert done_.returncode == 0, done_.stderr
    assert {f"{name}=7".encode() for name in accepted} <= set(done_.stdout.split(b"\n", 2)[2].split(b"\0"))


def test_the_shim_waits_for_the_models_folder(tmp_path: Path) -> None:
    missing = tmp_path / "a volume/models"
    shim = _installed_shim(tmp_path, f"OLLAMA_MODELS={missing}\n")
    running = subprocess.Popen(["/bin/sh", shim], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with running:
        assert running.stderr
        assert running.stderr.readline().startswith(f"OLLAMA_MODELS: {missing} does not exist; waiting for it")
        assert running.poll() is None
        assert not missing.exists()
        missing.mkdir(parents=True)
        out, said = running.communicate(timeout=30)
    assert said == ""  # it says so once
    assert f"OLLAMA_MODELS={missing}" in out


@pytest.mark.parametrize("text", ["rm -rf /\n", "A-B=1\n", "a=1\n", "A$(touch x)=1\n", "=1\n"])
def test_the_shim_refuses_what_is_no_variable(tmp_path: Path, text: str) -> None:
    done = _run_shim(tmp_path, text)
    assert done.returncode == 78
    assert re.search(rb"environment: line 1: not (KEY=VALUE|the name of a variable)\n", done.stderr)
    assert done.stdout == b""


@pytest.mark.parametrize(
    "line", ["LLAMA_API_KEY {}", "{}", "{}=", "LLAMA_API_KEy={}", " LLAMA_API_KEY={}", "llama_api_key={}"]
)
def test_a_damaged_line_is_not_shown_since_it_may_be_a_key(tmp_path: Path, line: str) -> None:
    secret = "Hunter2Hunter2Hunter2"
    text = f"# a key\n\nA=1\n{line.format(secret)}\n"
    done = _run_shim(tmp_path, text)
    assert done.returncode == 78
    assert b"environment: line 4: not " in done.stderr
    assert secret.encode() not in done.stderr
    assert environment.doubt(text) == "line 4: not KEY=VALUE"


def test_the_shim_ends_when_there_is_no_release(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    done = subprocess.run(["/bin/sh", "-c", _shim(prefix)], capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""


@given(_path, _path, st.text(string.ascii_letters + ".<>&'\"", min_size=1))
def test_the_plist_says_what_it_was_given_or_is_refused(folder: Path, home: Path, label: str) -> None:
    prefix = Prefix(folder)
    try:
        data = _plist(prefix, label=label, home=home)
    except ConfigError:
        assert any(not _xml_can_hold(letter) for letter in f"{folder}{home}")
        return
    content = plistlib.loads(data)
    assert content["ProgramArguments"] == [str(prefix.shim)]
    assert content["StandardOutPath"] == content["StandardErrorPath"] == str(prefix.logs / "ollama.log")
    assert content["Label"] == label
    assert data == _plist(prefix, label=label, home=home)


def _xml_can_hold(letter: str) -> bool:
    return letter in "\t\n" or " " <= letter <= "\ud7ff" or "\ue000" <= letter <= "\ufffd" or letter >= "\U00010000"


def test_a_control_character_in_the_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="property list"):
        _plist(Prefix(tmp_path / "a\x01b"), label="x", home=tmp_path)


def test_the_user_of_a_system_daemon(tmp_path: Path) -> None:
    with_user = plistlib.loads(_plist(Prefix(tmp_path), label="x", home=tmp_path, user="someone"))
    assert with_user["UserName"] == "someone"
    assert "UserName" not in plistlib.loads(_plist(Prefix(tmp_path), label="x", home=tmp_path))


@pytest.fixture
def release(tmp_path: Path) -> Release:
    place = Site.make(tmp_path)
    return records.read(place.release("1") / built.MANIFEST, Release)


def test_the_environment_file(release: Release, tmp_path: Path) -> None:
    text = _environment(release, DeployConfig(kv_cache_type="q8_0:turbo4", models=str(tmp_path / "a b")))
    (tmp_path / "environment").write_text(text)
    assert environment.read(tmp_path) == {
        "OLLAMA_HOST": "127.0.0.1:11434",
        "OLLAMA_KV_CACHE_TYPE": "q8_0:turbo4",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_MODELS": str(tmp_path / "a b"),
    }
    assert "OLLAMA_MODELS" not in _environment(release, DeployConfig())


@pytest.mark.parametrize(
    ("host", "written", "called"),
    [
        ("127.0.0.1", "127.0.0.1:1", "http://127.0.0.1:1"),
        ("0.0.0.0", "0.0.0.0:1", "http://127.0.0.1:1"),
        ("::1", "[::1]:1", "http://[::1]:1"),
        ("[::]", "[::]:1", "http://[::1]:1"),
        ("localhost", "localhost:1", "http://localhost:1"),
    ],
)
def test_hosts(release: Release, tmp_path: Path, host: str, written: str, called: str) -> None:
    (tmp_path / "environment").write_text(_environment(release, DeployConfig(host=host, port=1)))
    assert environment.read(tmp_path)["OLLAMA_HOST"] == written
    assert OllamaUnit().url(environment.read(tmp_path)) == called


@pytest.mark.parametrize("kind", ["turbo3", "q8_0:turbo3", "turbo3:f16", "nonsense"])
def test_a_type_that_the_release_lacks(release: Release, kind: str) -> None:
    with pytest.raises(ConfigError, match="has no cache type"):
        _environment(release, DeployConfig(kv_cache_type=kind))


def test_every_type_of_llama_cpp_suits_a_stock_release(release: Release) -> None:
    stock = replace(release, cache_types=())
    for kind in (one.name for one in UPSTREAM):
        assert f"OLLAMA_KV_CACHE_TYPE={kind}\n" in _environment(stock, DeployConfig(kv_cache_type=kind))
    for kind in ("q8_0:f16", "q4_0,first=1:q8_0"):
        with pytest.raises(ConfigError, match="built without the series"):
            _environment(stock, DeployConfig(kv_cache_type=kind))


def test_rules_reach_the_service(release: Release) -> None:
    asked = "q8_0:turbo4,first=2:q8_0,last=2:q8_0"
    assert f"OLLAMA_KV_CACHE_TYPE={asked}\n" in _environment(release, DeployConfig(kv_cache_type=asked))
    with pytest.raises(ConfigError, match="has no cache type 'turbo9'"):
        _environment(release, DeployConfig(kv_cache_type="turbo4,last=1:turbo9"))


def test_a_line_break_does_not_become_a_variable(release: Release) -> None:
    with pytest.raises(ConfigError, match="control character"):
        _environment(release, DeployConfig(models="/x\nLD_PRELOAD=/evil"))


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "", ".hidden", "a\nb", "-x"])
def test_a_release_id_never_leads_out_of_releases(name: str) -> None:
    with pytest.raises(ReleaseInvalid):
        Prefix(Path(os.sep)).release(name)


def test_an_environment_with_a_key_is_for_its_owner_alone_also_when_it_is_put_back(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    path = prefix.release("a") / environment.FILE_NAME
    path.parent.mkdir(parents=True)
    store.write_environment("a", "OLLAMA_API_KEY=x\n", prefix, account.caller())
    assert path.stat().st_mode & 0o777 == 0o600
    reader = account.named("daemon") if os.getuid() == 0 else account.caller()
    store.show_environment("a", prefix, reader)
    before = (path.stat().st_mode & 0o777, path.stat().st_gid)
    assert before == ((0o640, reader.gid) if os.getuid() == 0 else (0o600, before[1]))
    modes.set_all(path.parent, ())
    restorepoint.prepare(prefix, "a", "")
    store.write_environment("a", "OLLAMA_API_KEY=y\n", prefix, account.caller())
    assert not restorepoint.put_back(prefix, "a")
    assert (path.stat().st_mode & 0o777, path.stat().st_gid) == before
    assert path.read_text() == "OLLAMA_API_KEY=x\n"
