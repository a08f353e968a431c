"""A prefix in which anything may be damaged or forged: it is repaired or refused, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import plistlib
import re
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import alive
from toolchain.build import release as built
from toolchain.core.errors import PrefixInvalid, RecordError, ReleaseInvalid, ToolchainError, Unverified
from toolchain.deploy import installed, installer, repair, store
from toolchain.deploy.installed import InstalledRelease
from toolchain.deploy.journal import Journal
from toolchain.deploy.prefix import Prefix

from .damages import CASES, LABEL, OTHER_LABEL, World
from .site import Site, identifier


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.make(tmp_path_factory.mktemp("damaged"))
    yield world
    world.site.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.mend()
    return shared


@pytest.mark.sampled(16)
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_damaged_is_rebuilt_and_nothing_outside_is_touched(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = world.outside()
    CASES[name].apply(world)
    found = world.site.status()
    assert (found.active, found.healthy) == (world.a if "swap to a" in name else world.b, True)
    assert sorted(found.releases) == sorted((world.a, world.b))
    assert found.parent == ("" if "swap to a" in name else world.a)
    assert alive(found.pid)
    installer.prune(world.site.config, world.site.console)  # which always takes the lock
    assert re.search(CASES[name].said, capsys.readouterr().err, re.DOTALL)
    assert world.outside() == before
    assert not repair.needed(world.prefix)
    store.forget(world.prefix)
    world.site.assert_clean()


@pytest.mark.slow
def test_the_release_to_go_back_to_survives_the_next_install(world: World) -> None:
    for folder in world.prefix.releases.iterdir():
        (folder / installed.OWN_RECORD).unlink()  # as an earlier version left it
    world.prefix.state.write_text("{")
    release = world.site.release("next")
    assert world.site.install(release).parent == world.b
    back = installer.rollback(world.site.config, world.site.console)
    assert (back.active, back.parent, back.healthy) == (world.b, world.a, True)
    assert back.releases == (world.a, world.b, identifier(release))


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("forged", ["another's", "missing", "not a folder of ours", "no plist", "no plist, as ours"])
def test_a_forged_registration_deletes_and_unloads_nothing(world: World, forged: str) -> None:
    plist = world.others_plist
    plist.write_bytes(plistlib.dumps({"Label": OTHER_LABEL, "ProgramArguments": ["/bin/sleep", "60"]}))
    domain = f"gui/{os.getuid()}"
    assert world.site.launchctl("bootstrap", domain, str(plist)).returncode == 0
    before = world.outside()
    change = {
        "another's": {"label": OTHER_LABEL, "unit_file": str(plist)},
        "missing": {"label": OTHER_LABEL, "unit_file": str(plist.with_name("missing.plist"))},
        "not a folder of ours": {"label": OTHER_LABEL, "unit_file": str(world.canary / f"{OTHER_LABEL}.plist")},
        "no plist": {"label": "file", "unit_file": str(world.canary / "file")},
        "no plist, as ours": {"label": LABEL, "unit_file": str(world.canary / "file"), "domain": "system"},
    }[forged]
    world.prefix.state.write_text(json.dumps(json.loads(world.prefix.state.read_text()) | change))
    world.site.configured(label="io.turboquant.renamed").install(world.site.built(world.b))
    world.site.install(world.site.built(world.b))
    assert world.outside() == before
    assert world.site.launchctl("print", f"{domain}/{OTHER_LABEL}").returncode == 0
    assert world.site.launchctl("bootout", f"{domain}/{OTHER_LABEL}").returncode == 0


@pytest.mark.parametrize("name", ["releases", "bin", "before", "tmp"])
def test_a_folder_that_leads_out_of_the_prefix_is_refused(site: Site, name: str) -> None:
    outside = site.folder / "outside"
    (outside / "x").mkdir(parents=True)
    (site.prefix.folder / name).symlink_to(outside)
    for operation in (installer.status, installer.prune, installer.uninstall, installer.rollback):
        with pytest.raises(PrefixInvalid, match=rf"{name} is a link out of the prefix") as refused:
            operation(site.config, site.console)
        assert refused.value.exit_code == 58
    assert [path.name for path in outside.iterdir()] == ["x"]


@pytest.mark.slow
def test_a_release_that_was_changed_does_not_run_again(world: World) -> None:
    folder = world.prefix.release(world.a)
    for name, text, error, said in (
        ("environment", "LD_PRELOAD=/tmp/x.so\n", ReleaseInvalid, "LD_PRELOAD makes the program load"),
        ("verification.json", "{}", Unverified, "is not the verification that the release was installed with"),
        ("lib/ollama/libggml.so.0", "changed", ReleaseInvalid, "was changed"),
        ("manifest.json", (world.prefix.release(world.b) / "manifest.json").read_text(), ReleaseInvalid, "changed"),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        try:
            with pytest.raises(error, match=said):
                installer.rollback(world.site.config, world.site.console)
        finally:
            (folder / name).write_text(before)
    assert world.site.status().active == world.b


@pytest.mark.slow
def test_what_kills_and_finder_leave_is_swept_or_ignored(world: World) -> None:
    prefix, folder = world.prefix, world.prefix.release(world.a)
    left = [
        prefix.folder / ".state.json.abcdefgh",
        prefix.folder / ".journal.json.0123_xyz",
        prefix.folder / "lock.owner",
        prefix.shim.parent / ".turboquant-ollama.abcdefgh",
        prefix.logs / ".failed-x.log.abcdefgh",
        folder / ".environment.abcdefgh",
        folder / ".manifest.json.abcdefgh",
        world.site.emulator / "LaunchAgents" / f".{LABEL}.plist.abcdefgh",
        prefix.temporary / "probe-killed/model.gguf",
    ]
    foreign = world.site.emulator / "LaunchAgents" / ".other.plist.abcdefgh"
    finders = [folder / ".DS_Store", folder / "lib/._ollama", folder / ".localized", prefix.releases / ".DS_Store"]
    (prefix.temporary / "probe-killed").mkdir(parents=True)
    for path in (*left, foreign, *finders):
        path.write_bytes({".DS_Store": b"\0\0\0\1Bud1", "._ollama": b"\0\5\x16\7"}.get(path.name, b""))
    back = installer.rollback(world.site.config, world.site.console)
    assert (back.active, back.healthy) == (world.a, True)
    assert [path for path in left if path.exists()] == []
    assert not prefix.temporary.exists()
    assert foreign.exists()
    foreign.unlink()
    library = folder / "lib/ollama/._libggml-x.so"
    library.write_bytes(b"\x7fELF")
    world.site.install(world.site.built(world.b))
    with pytest.raises(ReleaseInvalid, match=r"_libggml-x\.so is not in the manifest"):
        installer.rollback(world.site.config, world.site.console, to=world.a)
    library.unlink()


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(site: Site, mask: int) -> None:
    release = site.release("1")
    site.launchctl("print", "system")  # the emulator runs
    before = os.umask(mask)
    try:
        site.install(release)
    finally:
        os.umask(before)
    prefix = site.prefix
    for path in (prefix.folder, prefix.releases, prefix.shim.parent, prefix.logs, *prefix.releases.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir() and not path.is_symlink():
            assert (mode, path) == (0o755, path)
        elif not path.is_symlink():
            program, secret = path.name in ("ollama", "llama-server"), path.name == "environment"
            assert mode == (0o755 if program else 0o600 if secret else 0o644), path
    for path in (prefix.state, prefix.lock, site.log_file):
        assert (stat.S_IMODE(path.stat().st_mode), path) == (0o644, path)
    assert stat.S_IMODE(prefix.shim.stat().st_mode) == 0o755


@pytest.mark.slow
def test_unsafe_modes_of_an_earlier_version_are_mended(world: World) -> None:
    folder = world.prefix.release(world.a)
    manifest = json.loads((folder / built.MANIFEST).read_text())
    del manifest["executable"]
    (folder / built.MANIFEST).write_text(json.dumps(manifest))
    for path in (folder / "bin", folder / "bin/ollama"):
        path.chmod(0o777)
    (folder / "lib/ollama/libggml.so.0").chmod(0o4755)
    assert installer.rollback(world.site.config, world.site.console).healthy
    assert stat.S_IMODE((folder / "bin/ollama").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "lib/ollama/libggml.so.0").stat().st_mode) == 0o644
    assert stat.S_IMODE(world.prefix.releases.stat().st_mode) == 0o755
    assert stat.S_IMODE(world.prefix.state.stat().st_mode) == 0o644


@pytest.mark.slow
def test_modes_are_those_of_the_manifest(site: Site) -> None:
    release = site.release("1")
    (release / "bin/ollama").chmod(0o4777)
    with pytest.raises(ReleaseInvalid, match=r"bin/ollama is setuid.*bin/ollama can be written by others") as refused:
        site.install(release)
    assert "chmod -R go-w,u-s,g-s,-t" in refused.value.hint
    assert not site.prefix.releases.exists()


_EXAMPLES = int(os.environ.get("TURBOQUANT_EXAMPLES", "4"))
_names = st.sampled_from(["", "a", "../../canary", "/etc", "canary/x", "..", "\0", "x" * 300, "a\nb", "releases/x"])
_scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _names, st.text(max_size=5))
_anything = st.recursive(
    _scalar, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
_release = st.fixed_dictionaries({"id": _names, "parent": _names, "version": _names, "installed": _names})
_state = st.one_of(
    _anything,
    st.fixed_dictionaries(
        {},
        optional={
            "active": _names, "releases": st.one_of(st.lists(_release, max_size=2), _anything), "label": _names,
            "domain": _names, "unit_file": _names, "plist": _names, "unit_sha256": _names,
        },
    ),
)  # fmt: skip
_entry = st.one_of(
    _anything,
    st.fixed_dictionaries(
        {
            "operation": st.sampled_from(["install", "rollback", "x"]),
            "step": st.sampled_from(["copy", "swap", "health", "bless", "prune", "restore", "remove", "x"]),
            "release": _names,
            "previous": _names,
        },
        optional={"environment_before": _anything, "log_offset": _anything, "tries_left": _anything},
    ),
)  # fmt: skip


def _placed(value: Any, world: World) -> Any:
    """The value with real paths and ids in place of some names."""
    if isinstance(value, str):
        known = {"a": world.a, "/etc": str(world.canary / "file"), "canary/x": str(world.others_plist)}
        return known.get(value, value)
    if isinstance(value, list):
        return [_placed(one, world) for one in value]
    return {key: _placed(one, world) for key, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.slow
@settings(
    max_examples=_EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_state, _entry)
def test_any_json_in_state_and_journal(world: World, state: object, entry: object) -> None:
    """Only errors of ours, nothing outside touched, and a healthy service afterwards."""
    world.mend()
    before = world.outside()
    world.prefix.state.write_text(json.dumps(_placed(state, world)))
    world.prefix.journal.write_text(json.dumps(_placed(entry, world)))
    try:
        world.site.status()
        installer.prune(world.site.config, world.site.console)
    except ToolchainError as error:
        pytest.fail(f"a command ended with {error.exit_code}: {error}")
    assert world.outside() == before
    found = world.site.status()
    assert found.healthy
    assert {world.a, world.b} <= set(found.releases)


@given(st.binary(max_size=60))
def test_any_bytes_in_state_and_journal_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    prefix = Prefix(tmp_path_factory.mktemp("bytes"))
    prefix.state.write_bytes(data)
    prefix.journal.write_bytes(data)
    assert installed.read(prefix).releases == ()
    with pytest.raises(RecordError):
        Journal(prefix.journal).read()


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ({}, True),
        ({"id": "other"}, False),
        ({"parent": "../x"}, False),
        ({"parent": "gone-1"}, True),
        ({"installed": "never"}, False),
        ({"version": 5}, False),
    ],
)
def test_what_a_release_says_of_itself_is_used_where_it_fits(site: Site, own: dict[str, Any], shown: bool) -> None:
    source = site.release("1")
    name = identifier(source)
    site.prefix.releases.mkdir()
    source.rename(site.prefix.releases / name)
    said = {"id": name, "parent": "", "version": "1", "installed": "2026-01-01T00:00:00+00:00"} | own
    (site.prefix.release(name) / installed.OWN_RECORD).write_text(json.dumps(said))
    state = installed.rebuilt(site.prefix)
    assert (state.active, [one.id for one in state.releases]) == (name, [name])
    assert (state.releases[0] == InstalledRelease(**said)) is shown
    assert installed.rebuilt(site.prefix, unfinished=name).releases == (state.releases if shown else ())


def test_a_folder_in_place_of_what_a_release_says_of_itself(site: Site) -> None:
    name = site.install(site.release("1")).active
    own = site.prefix.release(name) / installed.OWN_RECORD
    own.unlink()
    (own / "in the way").mkdir(parents=True)
    assert site.install(site.release("2")).parent == name
    assert own.is_file()
    assert installer.rollback(site.config, site.console).active == name
