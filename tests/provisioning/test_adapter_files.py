"""The files of the adapters: well-formed, the same each time, without secrets, and with values that stay data."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis
import pytest
import yaml
from hypothesis import assume, settings
from hypothesis import strategies as st

from toolchain.core import records
from toolchain.core.delivery_errors import CannotVerify, Tampered, UnknownKey
from toolchain.core.errors import ConfigError
from toolchain.provisioning import desired
from toolchain.provisioning.adapters import outcomes, rendering
from toolchain.provisioning.adapters.inputs import Inputs
from toolchain.publishing import published
from toolchain.publishing.keyfiles import generate

from . import autopkglib
from .semantics import PKGINFO
from .site import NEW, Site, make

ROOT = Path(__file__).parents[2]
SHELLS = [shell for shell in ("/bin/sh", "/bin/bash") if Path(shell).exists()]
AUTOPKG = {
    "URLDownloader": ({"url"}, {"filename", "download_dir", "curl_opts", "request_headers", "prefetch_filename"}),
    "EndOfCheckPhase": (set[str](), set[str]()),
    "FileCreator": ({"file_path", "file_content"}, {"file_mode"}),
    "PkgRootCreator": ({"pkgroot", "pkgdirs"}, set[str]()),
    "PkgCreator": ({"pkg_request"}, {"force_pkg_build"}),
    "MunkiImporter": ({"pkg_path"}, {"repo_subdirectory", "pkginfo", "MUNKI_REPO", "force_munkiimport"}),
    "TurboQuantVerifier": ({"folder", "sha256", "signers"}, {"revoked"}),
}
"""processor -> the inputs that it requires, and others that it documents (AutoPkg 2.9, and ours)"""
LINES = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=60).map(
    lambda text: text + "'; touch stolen; $(touch stolen) `touch stolen` \\ \"" if len(text) % 2 else text
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def given(site: Site) -> Inputs:
    """What the site's files are rendered from."""
    return site.inputs()


def shell_scripts(site: Site) -> dict[str, bytes]:
    """Every script, those inside of other files, too."""
    found = {path: data for path, data in site.scripts.items() if data.startswith(b"#!/bin/sh") and "/tq" not in path}
    found |= {key: text.encode() for key, text in plistlib.loads(site.scripts[PKGINFO]).items() if "_script" in key}
    with zipfile.ZipFile(io.BytesIO(site.scripts["ddm/assets/apply.zip"])) as archive:
        found |= {name: archive.read(name) for name in archive.namelist()}
    found |= {path: site.scripts[path] for path in ("ansible/tq-plan.sh", "ansible/tq-apply.sh")}
    return found


def test_the_same_inputs_give_the_same_bytes_and_another_desired_state_others(site: Site) -> None:
    again = {path: data for files in rendering.render(site.inputs()).values() for path, data in files.items()}
    assert again == site.scripts
    assert len(again) == 24
    other = rendering.render(site.inputs(desired={**site.inputs().desired, "port": "11500"}))
    assert other["jamf"]["jamf/policy.sh"] != site.scripts["jamf/policy.sh"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck")
def test_shellcheck_finds_nothing(site: Site, tmp_path: Path) -> None:
    scripts = shell_scripts(site)
    assert len(scripts) == 14
    for number, data in enumerate(scripts.values()):
        (tmp_path / f"{number}.sh").write_bytes(data)
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-f", "gcc", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=15)
@hypothesis.given(model=LINES, variable=LINES, signers=LINES)
def test_a_value_is_data_whatever_it_holds(given: Inputs, shell: str, model: str, variable: str, signers: str) -> None:
    assume(not any("@" in one for one in (model, variable)))  # as in a URL with a password, which is refused
    values = {**given.desired, "models": model, "env.OLLAMA_ORIGINS": variable}
    changed = dataclasses.replace(given, desired=values, signers=signers)
    made = rendering.render(changed, ["kandji"])["kandji"]
    script = made["kandji/audit.sh"].decode()
    head = script[: script.index("\nsay() {")]
    folder = Path(given.folder).with_name("empty")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [shell, "-c", f"{head}\nprintf '%s\\n' \"$desired\"; printf '%s' \"$signers\" >&2"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.decode() == desired.render(values)
    assert done.stderr.decode() == (signers if signers.strip() and not signers.lstrip().startswith("#") else "")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"desired": {"channel_url": "https://x.example", "env.API_TOKEN": "abc"}}, "secret"),
        ({"desired": {"channel_url": "https://user:pass@x.example"}}, "secret"),
        ({"desired": {"channel_url": "http://x.example"}}, "no URL"),
        ({"desired": {"channel_url": "https://x.example", "models": "a\nb=c"}}, "control character"),
        ({"desired": {"channel_url": "https://x.example", "modles": "a"}}, "unknown key"),
        ({"signers": "-----BEGIN OPENSSH " + "PRIVATE KEY-----"}, "private key"),
        ({"signers": "publisher \x1b[2J"}, "control character"),
    ],
)
def test_what_does_not_belong_into_a_script_is_refused(given: Inputs, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rendering.render(dataclasses.replace(given, **changed))


def test_an_unknown_adapter_is_refused_with_those_that_there_are(given: Inputs) -> None:
    with pytest.raises(ConfigError, match=r"unknown adapter 'jmaf'\n.*munki,jamf,kandji"):
        rendering.render(given, ["munki", "jmaf"])


@pytest.mark.parametrize(
    ("text", "line"),
    [("port", "line 1: not KEY"), ("\n# x\nprot=1", "line 3: unknown"), ("port=1\nport=2", "line 2: port occurs twice"),
     ("models=a\rb", "line 1: .*control"), ("env.path=x", "line 1: .*capital"), ("env.DYLD_X=x", "line 1: .*loader")],
)  # fmt: skip
def test_a_malformed_desired_state_names_its_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        desired.parse(text)


@settings(max_examples=50)
@hypothesis.given(st.dictionaries(st.sampled_from(desired.KEYS), LINES))
def test_a_desired_state_is_read_back(values: dict[str, str]) -> None:
    assert desired.parse(desired.render(values)) == values


def test_munkis_item_is_versioned_by_the_sequence_and_names_its_release(site: Site) -> None:
    item = plistlib.loads(site.scripts[PKGINFO])
    assert item["version"] == "12"
    assert item["installer_type"] == "nopkg"
    assert (item["minimum_os_version"], item["supported_architectures"]) == ("14.0", ["arm64"])
    assert item["unattended_install"] is item["uninstallable"] is True
    assert item["uninstall_method"] == "uninstall_script"
    assert "postinstall_script" not in item  # Munki only warns when one fails
    assert f"release={NEW}\n" in item["preinstall_script"] + "\n"
    assert "release=" not in site.scripts["jamf/policy.sh"].decode().partition("signers=")[0].partition("desired=")[2]


def test_the_profile_allows_by_label_and_replaces_its_earlier_version(site: Site) -> None:
    profile = plistlib.loads(site.scripts["mobileconfig/background-items.mobileconfig"])
    [payload] = profile["PayloadContent"]
    assert payload["PayloadType"] == "com.apple.servicemanagement"
    assert [(rule["RuleType"], rule["RuleValue"]) for rule in payload["Rules"]] == [
        ("LabelPrefix", "io.turboquant.ollama")
    ]
    assert {uuid.UUID(one["PayloadUUID"]).version for one in (profile, payload)} == {5}
    later = rendering.render(site.inputs(sequence=13), ["mobileconfig"])["mobileconfig"]
    assert later["mobileconfig/background-items.mobileconfig"] == plistlib.dumps(profile)


def test_the_declarations_refer_to_what_is_published(site: Site) -> None:
    declared = {
        path: json.loads(data)
        for path, data in site.scripts.items()
        if path.startswith("ddm/") and path.endswith("json")
    }
    configuration = declared["ddm/configuration.json"]
    assert configuration["Type"] == "com.apple.configuration.services.background-tasks"
    task = configuration["Payload"]["TaskType"]
    references = {
        one["Identifier"]: one["Payload"]["Reference"]
        for one in declared.values()
        if one["Type"] == "com.apple.asset.data"
    }
    [daemon] = configuration["Payload"]["LaunchdConfigurations"]
    assert daemon["Context"] == "daemon"
    assert {configuration["Payload"]["ExecutableAssetReference"], daemon["FileAssetReference"]} == set(references)
    for reference in references.values():
        data = site.scripts[f"ddm/assets/{Path(reference['DataURL']).name}"]
        assert (reference["Size"], reference["Hash-SHA-256"]) == (len(data), records.sha256_bytes(data))
    plist = plistlib.loads(site.scripts["ddm/assets/daemon.plist"])
    assert plist["ProgramArguments"][1].endswith(f"/Services/{task}/apply.sh")
    with zipfile.ZipFile(io.BytesIO(site.scripts["ddm/assets/apply.zip"])) as archive:
        assert [(one.filename, one.external_attr >> 16) for one in archive.infolist()] == [("apply.sh", 0o100755)]
    moved = rendering.render(site.inputs(desired={**site.inputs().desired, "port": "11500"}), ["ddm"])["ddm"]
    assert (
        json.loads(moved["ddm/asset-executable.json"])["ServerToken"]
        != declared["ddm/asset-executable.json"]["ServerToken"]
    )


def test_the_package_is_for_this_volume_this_architecture_and_from_a_mac(site: Site, tmp_path: Path) -> None:
    root = ElementTree.fromstring(site.scripts["pkg/distribution.xml"])
    options, domains = root.find("options"), root.find("domains")
    assert options is not None
    assert domains is not None
    assert options.attrib == {"customize": "never", "rootVolumeOnly": "true", "hostArchitectures": "arm64"}
    assert domains.get("enable_currentUserHome") == "false"
    assert [one.get("min") for one in root.iter("os-version")] == ["14.0"]
    assert [(one.get("version"), one.text) for one in root.findall("pkg-ref")] == [("12", "component.pkg")]
    if sys.platform != "darwin":
        (tmp_path / "build.sh").write_bytes(site.scripts["pkg/build.sh"])
        done = subprocess.run(["sh", tmp_path / "build.sh"], capture_output=True, text=True, check=False)
        assert (done.returncode, "a Mac's" in done.stderr) == (41, True)


def test_the_playbook_needs_no_python_and_knows_tqs_codes(site: Site) -> None:
    [play] = yaml.safe_load(site.scripts["ansible/playbook.yml"])
    assert play["gather_facts"] is False
    modules = [{key for key in task if "." in key} for task in play["tasks"]]
    assert modules == [{"ansible.builtin.script"}] * 2
    for task in play["tasks"]:
        assert f"ansible/{task['ansible.builtin.script']['cmd']}" in site.scripts
    plan, apply = play["tasks"]
    needed = {one.code for one in outcomes.OUTCOMES if one.need == "yes"}
    assert set(re.findall(r"\d+", plan["failed_when"])) == {"0", *map(str, needed)}
    assert apply["changed_when"].endswith("rc == 10")
    assert apply["failed_when"].endswith(f"not in {list(outcomes.SUCCESSES)}")


def test_autopkgs_recipes_have_the_keys_that_its_processors_document(site: Site) -> None:
    recipes = {
        name: yaml.safe_load(site.scripts[f"autopkg/TurboQuant.{name}.recipe.yaml"]) for name in ("pkg", "munki")
    }
    assert recipes["munki"]["ParentRecipe"] == recipes["pkg"]["Identifier"]
    for recipe in recipes.values():
        assert {"Identifier", "Input", "Process", "MinimumVersion"} <= set(recipe)
        for step in recipe["Process"]:
            required, further = AUTOPKG[step["Processor"]]
            assert required <= set(step.get("Arguments", {})) <= required | further, step["Processor"]
    steps = [step["Processor"] for step in recipes["pkg"]["Process"]]
    assert steps.index("TurboQuantVerifier") < steps.index("PkgCreator")
    assert recipes["pkg"]["Input"]["PREINSTALL"].encode() == site.scripts["pkg/scripts/preinstall"]
    assert recipes["munki"]["Input"]["pkginfo"]["version"] == "12"
    assert recipes["munki"]["Input"]["pkginfo"]["installcheck_script"].encode() in shell_scripts(site).values()


def test_autopkgs_processor_verifies_what_was_downloaded(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "verifier.py").write_bytes(site.scripts["autopkg/TurboQuantVerifier.py"])
    monkeypatch.setitem(sys.modules, "autopkglib", autopkglib)
    spec = importlib.util.spec_from_file_location("verifier", tmp_path / "verifier.py")
    assert spec is not None
    assert spec.loader is not None
    verifier = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verifier)
    for name in ("tq", "tq.sig"):
        shutil.copy(site.publication.folder / name, tmp_path)
    recipe = yaml.safe_load(site.scripts["autopkg/TurboQuant.pkg.recipe.yaml"])["Input"]
    env = {"folder": str(tmp_path), "sha256": recipe["TQ_SHA256"], "signers": recipe["SIGNERS"], "revoked": ""}
    good = verifier.TurboQuantVerifier(env)
    good.main()
    assert 'Good "turboquant-tq" signature' in good.said[0]
    public = site.key.with_suffix(".pub").read_text()
    for changed in ({"sha256": "0" * 64}, {"signers": "publisher ssh-ed25519 AAAA"}, {"revoked": public}):
        with pytest.raises(autopkglib.ProcessorError):
            verifier.TurboQuantVerifier({**env, **changed}).main()


def test_the_formula_installs_tq_alone(site: Site, tmp_path: Path) -> None:
    text = site.scripts["homebrew/Formula/turboquant-tq.rb"].decode()
    digest = records.sha256_file(site.publication.provisioner)
    assert f'sha256 "{digest}"' in text
    assert f"/provisioners/{digest}.sh'" in text
    assert 'conflicts_with cask: "ollama-app"' in text
    assert "service do" not in text
    if ruby := shutil.which("ruby"):
        (tmp_path / "turboquant-tq.rb").write_text(text)
        assert subprocess.run([ruby, "-c", tmp_path / "turboquant-tq.rb"], check=False).returncode == 0


@pytest.mark.slow
def test_the_task_writes_what_was_asked_for(site: Site, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "import tasks; tasks.start()", "provision.adapters", "--json", *words]
        chosen = {"publish.folder": site.publication.folder, "publish.signers": site.signers, "workspace": tmp_path}
        command += [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        env = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    wanted = ["--out", str(tmp_path / "out"), "--desired", str(site.folder / "desired")]
    done = run(*wanted, "--only", "munki,jamf")
    made = json.loads(done.stdout)
    assert (done.returncode, made["sequence"], made["release"]) == (0, 12, NEW)
    assert sorted(file["path"] for file in made["files"]) == ["jamf/attribute.sh", "jamf/policy.sh", PKGINFO]
    for file in made["files"]:
        assert records.sha256_file(tmp_path / "out" / file["path"]) == file["sha256"]
    assert (tmp_path / "out/jamf/policy.sh").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("file", "error"),
    [("channels/stable.json", Tampered), (f"releases/{NEW}/release.json", Tampered), ("provisioners/{}.sh", Tampered)],
)
def test_a_publication_that_was_changed_is_not_rendered(
    site: Site, tmp_path: Path, file: str, error: type[Exception]
) -> None:
    shutil.copytree(site.folder, tmp_path / "copy")
    copy = Site(tmp_path / "copy")
    with (copy.publication.folder / file.format(site.inputs().tq_sha256)).open("ab") as opened:
        opened.write(b"\n")
    with pytest.raises(error):
        copy.inputs()
    copy.publication.channel("stable").unlink()
    with pytest.raises(CannotVerify, match="publish and promote"):
        copy.inputs()


def test_a_publication_of_another_key_is_not_rendered(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.folder, tmp_path / "copy")
    copy = Site(tmp_path / "copy")
    public = generate(tmp_path / "stranger").with_suffix(".pub").read_text()
    copy.signers.write_text(f"{published.PRINCIPAL} {public}")
    with pytest.raises(UnknownKey):
        copy.inputs()


def test_every_code_of_the_contract_has_a_row() -> None:
    codes = [one.code for one in outcomes.OUTCOMES]
    assert codes == sorted(set(codes))
    assert {0, *range(1, 8), 10, 20, 21, *range(30, 42), *range(50, 57), 58, 130, 143} == set(codes)
