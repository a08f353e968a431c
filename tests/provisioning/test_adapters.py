"""What the tools that manage Macs do with their scripts, in each state of a Mac."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain.provisioning.adapters import agents, outcomes
from toolchain.provisioning.adapters.inputs import check
from toolchain.publishing import published, signature
from toolchain.publishing.keyfiles import generate

from .semantics import PKGINFO, STATES, TOOLS, State, bring
from .site import NEW, OLD, Site, make
from .tools import Machine

MAC = Machine()
PAGE = Path(__file__).parents[2] / "docs/how-to/provision-by-mdm.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make(tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    made.restore()
    made.state()
    yield made
    leftovers = [path for folder in (made.place, made.kept) for path in folder.glob(".*.new")]
    assert not leftovers


@pytest.mark.parametrize(
    ("state", "tool"),
    # that a code of tq is passed on is the same for each tool: those states are for one of them, and for `semantics`
    [(state, tool) for state in STATES for tool in TOOLS if "ends" not in state.files or tool == "munki"],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_each_tool_does_in_each_state_what_its_own_codes_mean(made: Site, state: State, tool: str) -> None:
    bring(made, state)
    assert MAC.observe(tool, made.scripts) == getattr(state, tool)[0]
    if tool == "munki" and state.munki[0] != state.munki[1]:
        assert MAC.observe(tool, made.scripts) == state.munki[1]


def test_the_page_shows_the_table() -> None:
    assert outcomes.table() in PAGE.read_text()


def test_a_check_changes_nothing(site: Site) -> None:
    site.state(mac="absent", release="")
    MAC.run(site.scripts["kandji/audit.sh"])
    MAC.run(site.scripts["jamf/attribute.sh"])
    MAC.run(site.scripts["ansible/tq-plan.sh"])
    assert site.calls == ["plan"] * 3
    assert not (site.place / "desired").exists()


def test_what_failed_is_not_tried_at_every_run(site: Site) -> None:
    site.state(release=OLD, bad=NEW)
    for _ in range(3):
        assert MAC.munki(site.scripts[PKGINFO]) == "install FAILED with 51"
    assert site.calls.count("apply") == 1
    attempt, code, at = (site.kept / "held").read_text().split()
    assert (attempt.partition("-")[0], code) == ("7", "51")
    (site.kept / "held").write_text(f"{attempt} 51 {int(at) - outcomes.HOLD_HOURS * 3600 - 1}\n")
    assert MAC.munki(site.scripts[PKGINFO]) == "install FAILED with 51"
    assert site.calls.count("apply") == 2
    # another desired state is another attempt
    assert MAC.jamf(site.scripts["jamf/policy.sh"], "", "", OLD) == "completed"
    (site.mac / "bad").unlink()
    (site.kept / "held").write_text(f"another 51 {at}\n")
    assert MAC.munki(site.scripts[PKGINFO]) == "install succeeded"
    assert not (site.kept / "held").exists()


def test_the_desired_state_the_keys_and_a_verified_tq_stay_on_the_mac(site: Site) -> None:
    site.state(mac="absent", release="")
    assert MAC.kandji(site.scripts["kandji/audit.sh"], site.scripts["kandji/remediation.sh"]) == "remediated"
    assert (site.place / "desired").read_text() == (site.mac / "seen").read_text()
    assert f"channel_url=file://{site.publication.folder}\n" in (site.place / "desired").read_text()
    assert (site.place / "allowed_signers").read_text().strip() == site.signers.read_text().strip()
    signature.verify_file(site.kept / "tq", published.PROVISIONER_NAMESPACE, site.signers)


def test_a_kept_tq_that_was_changed_is_replaced_by_the_channels(site: Site) -> None:
    (site.kept / "tq").write_text("#!/bin/sh\ntouch stolen\n")
    assert MAC.observe("munki", site.scripts) == "installed"
    assert site.calls == ["plan"]


def test_munki_removes_what_is_there_whatever_its_state(site: Site) -> None:
    site.state(mac="drifted")
    assert MAC.munki_removal(site.scripts[PKGINFO]) == "removal succeeded"
    assert (site.mac / "mac").read_text() == "absent\n"
    assert not site.place.exists()
    assert MAC.munki_removal(site.scripts[PKGINFO]) == "not installed"
    shutil.rmtree(site.publication.folder)
    assert MAC.munki_removal(site.scripts[PKGINFO]) == "not installed"  # nothing is known, so nothing is done


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"key": "other"}, "unknown key"),
        ({"options": 'valid-before="20200101"'}, "key revoked or not valid today"),
        ({"options": 'namespaces="turboquant-release"'}, "signature made for another purpose"),
        ({"revoked": True}, "key revoked or not valid today"),
    ],
)
def test_a_key_that_is_not_trusted_never_runs_anything(site: Site, options: dict[str, str], word: str) -> None:
    public = site.key.with_suffix(".pub")
    if options.get("key"):
        other = site.folder / "other"
        public = (other if other.exists() else generate(other)).with_suffix(".pub")
    signers = f"{published.PRINCIPAL} {options.get('options', '')} {public.read_text()}"
    given = check(site.inputs(signers=signers, revoked=public.read_text() if options.get("revoked") else ""))
    assert MAC.jamf_attribute(agents.jamf(given)["jamf/attribute.sh"]) == word
    assert MAC.run(agents.jamf(given)["jamf/policy.sh"]).code in (32, 33, 34)
    assert site.calls == []


def test_jamfs_parameters_change_keys_and_its_verbs_reach_tq(site: Site) -> None:
    policy = site.scripts["jamf/policy.sh"]
    hostile = 'it\'s $(touch stolen) `id` "x" \\ && a=b; # *'
    url = f"file://{site.publication.folder}/"
    assert MAC.jamf(policy, url, "stable", OLD, "alice", "turbo4", "11500", hostile) == "completed"
    seen = (site.mac / "seen").read_text().splitlines()
    assert {f"channel_url={url}", f"release={OLD}", "user=alice", "port=11500", f"models={hostile}"} <= set(seen)
    assert len(seen) == len({line.partition("=")[0] for line in seen})
    empty = [""] * 7
    assert MAC.jamf(policy, *empty, "status") == "completed"
    assert MAC.jamf(policy, *empty, "rollback") == "FAILED with 53"
    assert MAC.jamf(policy, *empty, "uninstall") == "completed"
    assert MAC.jamf(policy, *empty, "explode") == "FAILED with 2"
    assert site.calls[-3:] == ["status", "rollback", "uninstall"]


@pytest.mark.parametrize("value", ["a\nstate=absent", "a\n", "a\rb", "\x1b[2J", "ftp://example.org"])
def test_a_parameter_of_more_than_one_line_or_of_another_scheme_is_refused(site: Site, value: str) -> None:
    assert MAC.jamf(site.scripts["jamf/policy.sh"], value) == "FAILED with 3"
    assert site.calls == []


def test_a_package_refuses_another_volume_and_a_payload_that_was_changed(site: Site, tmp_path: Path) -> None:
    for path, data in site.scripts.items():
        if path.startswith("pkg/scripts/"):
            (tmp_path / Path(path).name).write_bytes(data)
            (tmp_path / Path(path).name).chmod(0o755)
    site.state(mac="absent", release="")

    def end(script: str, volume: str) -> int:
        return MAC.execute(tmp_path / script, "package.pkg", "/", volume).code

    assert [end("preinstall", "/"), end("preinstall", "/Volumes/Other")] == [0, 41]
    assert end("postinstall", "/Volumes/Other") == 41
    assert site.calls == []
    shutil.rmtree(site.publication.folder)  # tq comes with the package
    assert end("postinstall", "/") == 0
    assert (site.mac / "release").read_text() == f"{NEW}\n"
    with (tmp_path / "tq").open("a") as file:
        file.write("touch stolen\n")
    assert [end("preinstall", "/"), end("postinstall", "/")] == [30, 30]
    (tmp_path / "tq.sig").unlink()
    assert [end("preinstall", "/"), end("postinstall", "/")] == [31, 31]
    assert site.calls.count("apply") == 1


def test_what_is_interrupted_has_found_nothing_out_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    waits = b'#!/bin/sh\ntouch "$(sed -n \'s/^prefix=//p\' "$3")/waiting"\nexec sleep 60\n'
    for folder in (site.kept, site.publication.folder):
        (folder / "tq").write_bytes(waits)
        site.sign(folder / "tq", published.PROVISIONER_NAMESPACE)
    file = tmp_path / "installcheck"
    file.write_bytes(site.scripts["kandji/audit.sh"])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    started = subprocess.Popen(["/bin/sh", file], env={"TMPDIR": str(temporary)}, start_new_session=True)
    while not (site.mac / "waiting").exists():
        assert started.poll() is None
        time.sleep(0.02)
    subprocess.run(["kill", "-TERM", "--", f"-{started.pid}"], check=True)
    assert started.wait() == 0  # compliant: it looks again at the next run
    assert list(temporary.iterdir()) == []
