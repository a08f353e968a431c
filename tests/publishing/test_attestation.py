"""The documents of a release: what they say, that they are valid, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sources.gitrepo import git
from toolchain.build import content_digest, tools
from toolchain.core import records
from toolchain.core.delivery_errors import (
    CannotVerify,
    DocumentInvalid,
    KeyRevoked,
    SigningFailed,
    Tampered,
    UnknownKey,
    WrongNamespace,
)
from toolchain.core.errors import RecordError, ReleaseInvalid
from toolchain.firstrun import report
from toolchain.proofs import RanOn
from toolchain.publishing import attestation, gomodules, packing, sbom, signature, statements, testresult
from toolchain.publishing.keyfiles import generate
from toolchain.publishing.materials import gather
from toolchain.publishing.published import PRINCIPAL, RELEASE_NAMESPACE, STATEMENT_NAMESPACE, PublishedRelease, Role
from toolchain.stages import Release, Rendered, Scratch
from toolchain.text import as_text

from .released import HOOKS, LATE, MAC, THEIRS, World
from .test_signature import list_signer

pytest.importorskip("cyclonedx")
OLLAMA = "https://github.com/ollama/ollama"
STATEMENT = Path("verification.intoto.json")
STATEMENTS = f'namespaces="{STATEMENT_NAMESPACE}"'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A workspace with one verified, packed and attested release; not to be changed."""
    world = World(tmp_path_factory.mktemp("attested"))
    generate(world.key)
    list_signer(world.signers, world.key, STATEMENTS)
    release = world.release()
    world.verify(release)
    world.pack(release)
    attestation.attest(world.run(), release.id)
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy of it."""
    shutil.copytree(made.folder, tmp_path / "world", symlinks=True)
    return World(tmp_path / "world")


def only(world: World) -> Release:
    (folder,) = (world.workspace / "releases").glob("0.33*")
    return records.read(folder / "manifest.json", Release)


def folder_of(world: World) -> Path:
    return packing.staged(world.run()) / only(world).id


def bill(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder_of(world) / attestation.SBOM_FILE).read_text())
    return found


def component(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (one for one in found["components"] if one["name"] == name)
    assert isinstance(one, dict)
    return one


def properties(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("turboquant:"): one["value"] for one in found["properties"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- the bill of materials -------------------------------------------------------------------------


def test_a_document_that_does_not_fit_the_schema_is_refused(made: World) -> None:
    wrong = bill(made) | {"components": [{"type": "program", "name": "x"}]}
    with pytest.raises(DocumentInvalid, match=r"is not CycloneDX .*'program'"):
        sbom.validate(json.dumps(wrong).encode(), "x")
    with pytest.raises(DocumentInvalid, match="not JSON"):
        sbom.validate(b"{", "x")


def test_the_pedigree_holds_commits_and_all_patches(made: World) -> None:
    found, release = bill(made), only(made)
    rendered = records.read(made.records_of(release.id) / "rendered.json", Rendered)
    for target in rendered.targets:
        one = component(found, target.target)
        pedigree = one["pedigree"]
        assert [commit["uid"] for commit in pedigree["commits"]] == [target.commit]
        assert properties(pedigree["ancestors"][0]) == {"commit": target.commit}
        texts = [patch["diff"]["text"]["content"] for patch in pedigree["patches"] if "text" in patch["diff"]]
        assert [hashlib.sha256(text.encode()).hexdigest() for text in texts] == [target.sha256]
        assert properties(one)["patch_sha256:series"] == target.sha256
        assert properties(one)["series_sha256"] == rendered.series_sha256
        assert target.sha256 in pedigree["notes"]
    theirs = component(found, "llama.cpp")
    assert properties(theirs)[f"patch_sha256:{HOOKS}"] == hashlib.sha256(THEIRS.encode()).hexdigest()
    assert "int hook;" not in json.dumps(found), "no patch of Ollama's is there with its text"
    main = found["metadata"]["component"]["pedigree"]
    assert {one["uid"] for one in main["commits"]} == {target.commit for target in rendered.targets}


def test_the_pedigree_alone_gives_the_sources_that_were_built(made: World, tmp_path: Path) -> None:
    found = bill(made)
    for name in ("ollama", "llama.cpp"):
        git(tmp_path, "clone", "--quiet", str(made.folder / name), name)
        tree, pedigree = tmp_path / name, component(found, name)["pedigree"]
        git(tree, "checkout", "--quiet", pedigree["commits"][0]["uid"])
        for patch in pedigree["patches"]:
            if "url" in patch["diff"]:
                commit, _, path = patch["diff"]["url"].removeprefix(f"{OLLAMA}/blob/").partition("/")
                text = git(made.folder / "ollama", "show", f"{commit}:{path}") + "\n"
            else:
                text = patch["diff"]["text"]["content"]
            git(tree, "apply", "--index", "--whitespace=nowarn", stdin=text.encode())
        scratch = records.read(made.records_of(only(made).id) / "scratch.json", Scratch)
        built = git(
            scratch.root / name, "rev-parse", f"{properties(component(found, name))['patched_commit']}^{{tree}}"
        )
        assert git(tree, "write-tree") == built
    paths = [line.split()[0] for line in component(found, "llama.cpp")["pedigree"]["notes"].splitlines()[1:]]
    assert paths == [HOOKS, "the", LATE], "ours comes between Ollama's, by the name of its file"


def test_every_file_has_its_digest_and_a_link_its_target(made: World) -> None:
    release = only(made)
    files = {one["name"]: one for one in bill(made)["metadata"]["component"]["components"]}
    assert files.keys() == release.files.keys()
    link = files.pop("lib/ollama/libggml.so")
    assert (properties(link), link.get("hashes")) == ({"link_to": "libggml.so.0"}, None)
    for name, one in files.items():
        (digest,) = one["hashes"]
        assert digest == {"alg": "SHA-256", "content": records.sha256_file(made.directory(release.id) / name)}


def test_licences_tools_and_flags(made: World) -> None:
    found = bill(made)
    for name in ("ollama", "llama.cpp", "turboquant-series", "jsonhpp"):
        assert component(found, name)["licenses"][0]["license"]["id"] == "MIT"
    other = component(found, "other")["licenses"][0]["license"]
    assert other["name"] == "as in licenses/llama.cpp/LICENSE-other"
    assert other["text"]["content"] == "Do what you want.\n"
    tools = {one["name"]: one["version"] for one in found["metadata"]["tools"]["components"]}
    assert tools.items() >= {"cmake": "4.4", "c++": "12.2"}.items()
    assert properties(found["metadata"]) == {"flag:preset": "cpu", "flag:LTO": "ON"}
    assert found["metadata"]["timestamp"] == only(made).created
    assert found["serialNumber"] == sbom.serial_number(only(made).id).urn


def test_what_no_go_program_is_has_no_modules_and_says_so(world: World) -> None:
    program = world.directory(only(world).id) / "bin/ollama"
    found = gomodules.read(program)
    assert found is not None
    assert component(bill(world), "std")["version"] == found.go
    assert properties(bill(world))["go-modules"] == "0, as bin/ollama states them"
    script = world.folder / "script"
    script.write_text("#!/bin/sh\n")
    assert gomodules.read(script) is None
    materials = gather(world.run(), only(world).id)
    signed = dataclasses.replace(materials.packed, unsigned={"bin/ollama": "d" * 64})
    text = json.loads(sbom.make(dataclasses.replace(materials, packed=signed), None))
    assert properties(text)["go-modules"] == "unknown: bin/ollama holds no build information of Go"
    assert not [one for one in text["components"] if one["name"] == "std"]
    (ollama,) = (one for one in text["metadata"]["component"]["components"] if one["name"] == "bin/ollama")
    assert properties(ollama) == {"unsigned_sha256": "d" * 64}


@pytest.mark.slow
def test_modules_of_a_real_program(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/go.mod").write_text("module example.org/Part\n\ngo 1.21\n")
    (tmp_path / "part/part.go").write_text("package part\n\nconst Name = 1\n")
    (tmp_path / "go.mod").write_text(
        "module example.org/main\n\ngo 1.21\n\nrequire example.org/Part v1.2.3\n\nreplace example.org/Part => ./part\n"
    )
    (tmp_path / "main.go").write_text(
        'package main\n\nimport "example.org/Part"\n\nfunc main() { println(part.Name) }\n'
    )
    environ = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    subprocess.run([tools.go().path, "build", "-o", "main", "."], cwd=tmp_path, env=environ, check=True)
    found = gomodules.read(tmp_path / "main")
    assert found is not None
    (module,) = found.modules
    assert module == gomodules.GoModule(path="example.org/Part", version="v1.2.3", sum="", local="./part")


# -- statements ------------------------------------------------------------------------------------


def test_ssh_keygen_alone_verifies_a_statement_and_its_subjects_are_the_files(made: World) -> None:
    folder, release = folder_of(made), only(made)
    for name in ("provenance", "verification"):
        path = folder / f"{name}.intoto.json"
        with path.open("rb") as data:
            done = subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-f", made.signers, "-I", PRINCIPAL, "-n", STATEMENT_NAMESPACE,
                 "-s", f"{path}.sig"],
                stdin=data, capture_output=True, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        stated = json.loads(path.read_text())
        digests = {one["name"]: one["digest"]["sha256"] for one in stated["subject"]}
        packed = (folder / f"{release.id}.tar.gz").read_bytes()
        tar = gzip.decompress(packed)
        with tarfile.open(folder / f"{release.id}.tar.gz") as archive:
            manifest = archive.extractfile(f"{release.id}/manifest.json")
            assert manifest is not None
            inner = manifest.read()
        assert digests == {
            f"{release.id}.tar.gz": hashlib.sha256(packed).hexdigest(),
            f"{release.id}.tar": hashlib.sha256(tar).hexdigest(),
            f"{release.id}/manifest.json": hashlib.sha256(inner).hexdigest(),
        }


def test_the_provenance_names_commits_series_and_its_level(made: World) -> None:
    release = only(made)
    found = statements.read_statement(
        folder_of(made) / "provenance.intoto.json", made.signers, made.packed(release.id), "provenance"
    )
    definition = found.predicate["buildDefinition"]
    commits = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    assert commits["turboquant-series"] == {"sha256": release.series_sha256}
    assert commits["ollama"] == {"gitCommit": definition["externalParameters"]["ollama"]["commit"]}
    assert len(commits["llama.cpp"]["gitCommit"]) == 40
    assert "level 1" in definition["internalParameters"]["level"]
    assert found.predicate["runDetails"]["metadata"]["finishedOn"] == "2026-11-26T15:21:08Z"


def other_release(world: World) -> None:
    """A signed statement about another release in the place of this one's."""
    folder = folder_of(world)
    other = world.release("two")
    packed = records.read(world.pack(other) / "release.json", PublishedRelease)
    predicate = testresult.of_verification(world.verify(other), b"{}")
    text = statements.make(packed, "verification", predicate)
    attestation.store(folder.with_name(other.id), packed, {"verification": (STATEMENT.name, text)}, world.key)
    for ending in ("", ".sig"):
        shutil.copy(folder.with_name(other.id) / f"{STATEMENT}{ending}", folder)


def tampered(world: World) -> None:
    path = statement(world)
    path.write_bytes(path.read_bytes().replace(b'"PASSED"', b'"FAILED"'))


def unsigned(world: World) -> None:
    statement(world).with_name("verification.intoto.json.sig").unlink()


def wrong_namespace(world: World) -> None:
    signature.sign(statement(world), world.key, RELEASE_NAMESPACE)


def unknown_key(world: World) -> None:
    signature.sign(statement(world), generate(world.folder / "stranger"), STATEMENT_NAMESPACE)


def provenance_in_its_place(world: World) -> None:
    for ending in ("", ".sig"):
        shutil.copy(folder_of(world) / f"provenance.intoto.json{ending}", f"{statement(world)}{ending}")


def not_in_toto(world: World) -> None:
    statement(world).write_text("[]")
    signature.sign(statement(world), world.key, STATEMENT_NAMESPACE)


def signed_anew(world: World) -> None:
    path = statement(world)
    path.write_bytes(path.read_bytes().replace(b'"linux-x86_64"', b'"macos-arm64"'))
    signature.sign(path, world.key, STATEMENT_NAMESPACE)


def statement(world: World) -> Path:
    first = next(path for path in (world.workspace / "packed").iterdir() if path.is_dir())
    return first / "verification.intoto.json"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (tampered, Tampered, "not what was signed"),
        (unsigned, CannotVerify, "cannot be verified"),
        (wrong_namespace, WrongNamespace, RELEASE_NAMESPACE),
        (unknown_key, UnknownKey, "does not list"),
        (provenance_in_its_place, DocumentInvalid, "slsa.dev"),
        (not_in_toto, DocumentInvalid, "no statement of in-toto"),
        (signed_anew, Tampered, "not the file that release.json lists"),
        (other_release, DocumentInvalid, "is about 0.33.0-turbo1-"),
    ],
)
def test_each_refusal_has_a_code_of_its_own(
    world: World, change: Callable[[World], None], error: type[Exception], said: str
) -> None:
    release = world.packed(only(world).id)
    folder = folder_of(world)
    change(world)
    with pytest.raises(error, match=said):
        statements.proof_of(folder, release, world.signers)


def test_a_revoked_key_and_one_more_archive(world: World) -> None:
    release, folder = world.packed(only(world).id), folder_of(world)
    (world.folder / "revoked").write_text(world.key.with_name("key.pub").read_text())
    with pytest.raises(KeyRevoked):
        statements.proof_of(folder, release, world.signers, world.folder / "revoked")
    again = world.compress_otherwise(release.id)
    with pytest.raises(DocumentInvalid, match=r"is about another .*\.tar\.gz than"):
        statements.proof_of(folder, again, world.signers)
    packed = attestation.store(folder, again, {})
    assert set(packed.documents) == {"probe", "sbom"}, "what is about another archive is listed no more"


# -- results of tests ------------------------------------------------------------------------------


def built_of(release: Release) -> dict[str, Any]:
    return {field.name: getattr(release, field.name) for field in dataclasses.fields(report.Built)}


def summary(world: World, *, mac: bool = True, status: str = "confirmed", **changes: Any) -> Path:
    """The archive of a first run on the sources of the release."""
    found = {
        "machine": "Mac" if mac else "emulator", "system": MAC.system, "complete": True, "toolkit": "0.1.0",
        "assumptions": [
            {"id": "correctness.verify", "status": status}, {"id": "reboot.x", "status": "not tested"},
        ],
        "release": built_of(only(world)),
    } | changes  # fmt: skip
    path = world.folder / "firstrun.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        file = world.folder / "summary.json"
        file.write_text(json.dumps(found))
        archive.add(file, "summary.json")
    return path


def proofs(world: World, role: Role, predicate: dict[str, Any]) -> dict[str, tuple[str, str, bool, bool]]:
    """What is read of a release with one more statement."""
    folder, packed = folder_of(world), world.packed(only(world).id)
    text = statements.make(packed, role, predicate)
    packed = attestation.store(folder, packed, {role: (statements.file_name(role), text)}, world.key)
    found = statements.proof_of(folder, packed, world.signers)
    return {one.role: (one.result, one.platform, one.same_files, one.passed_on_a_mac) for one in found}


@pytest.mark.parametrize(
    ("ran_on", "ok", "found"),
    [
        (MAC, True, ("PASSED", "macos-arm64", True, True)),
        (MAC, False, ("FAILED", "macos-arm64", True, False)),
        (None, True, ("PASSED", "", True, False)),
    ],
)
def test_a_verification_says_where(
    world: World, ran_on: RanOn | None, ok: bool, found: tuple[str, str, bool, bool]
) -> None:
    predicate = testresult.of_verification(world.verify(only(world), ran_on=ran_on, ok=ok), b"{}")
    assert proofs(world, "verification", predicate) == {"verification": found}


def test_a_mac_whose_gpu_was_left_out_is_no_proof(world: World) -> None:
    predicate = testresult.of_verification(world.verify(only(world), ran_on=MAC, gpu=False), b"{}")
    assert proofs(world, "verification", predicate) == {"verification": ("WARNED", "macos-arm64", True, False)}
    elsewhere = testresult.of_verification(world.verify(only(world), gpu=False), b"{}")
    assert elsewhere["result"] == "PASSED", "where no GPU is required"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ("PASSED", "macos-arm64", False, True)),
        ({"mac": False}, ("PASSED", "emulator", False, False)),
        ({"status": "refuted"}, ("FAILED", "macos-arm64", False, False)),
        ({"status": "not tested"}, ("WARNED", "macos-arm64", False, False)),
        ({"complete": False}, ("WARNED", "macos-arm64", False, False)),
    ],
)
def test_a_first_run(world: World, changes: dict[str, Any], found: tuple[str, str, bool, bool]) -> None:
    release = dataclasses.replace(only(world), platform="macos-arm64")
    built = built_of(release) | {"id": "elsewhere"}
    predicate = testresult.of_first_run(summary(world, **{"release": built, **changes}), release)
    assert proofs(world, "firstrun", predicate)["firstrun"] == found
    same = testresult.of_first_run(summary(world, release=built_of(release)), release)
    assert proofs(world, "firstrun", same)["firstrun"] == ("PASSED", "macos-arm64", True, True)


def test_a_validation(world: World) -> None:
    release, path = only(world), world.folder / "validation.json"
    stated = {
        "release": release.id, "content_sha256": content_digest(release), "ok": True, "more": [1],
        "tests": [{"name": "perplexity", "ok": True}], "ran_on": records.to_builtins(MAC),
    }  # fmt: skip
    for changes, result in (
        ({}, "PASSED"),
        ({"tests": []}, "WARNED"),
        ({"ok": False}, "FAILED"),
        ({"tests": [{"name": "needle", "ok": False}]}, "FAILED"),
    ):
        path.write_text(json.dumps(stated | changes))
        found = proofs(world, "validation", testresult.of_validation(path, release))
        assert found["validation"] == (result, "macos-arm64", True, result == "PASSED")


@pytest.mark.slow
def test_both_are_given_by_flags_and_stay_as_they_are(world: World) -> None:
    release, path = only(world), world.folder / "validation.json"
    path.write_text(json.dumps({"release": release.id, "content_sha256": content_digest(release), "ok": True}))
    first = summary(world, mac=False)
    found = attestation.attest(world.run(), release.id, validation=str(path), firstrun=str(first))
    assert found.results == {"verification": "PASSED", "validation": "WARNED", "firstrun": "PASSED"}
    before = contents(found.folder)
    again = attestation.attest(world.run(), release.id)
    assert contents(found.folder) == before, "the same records and key give the same files"
    assert as_text(again).splitlines()[0].endswith(f"6 documents in {again.folder}")
    proven = statements.proof_of(found.folder, world.packed(release.id), world.signers)
    assert [(one.role, one.platform) for one in proven] == [
        ("verification", "linux-x86_64"), ("validation", ""), ("firstrun", "emulator"),
    ]  # fmt: skip


# -- what is not attested --------------------------------------------------------------------------


def spoil(file: str, **changes: Any) -> Callable[[World], dict[str, str]]:
    def change(world: World) -> dict[str, str]:
        path = world.records_of(only(world).id) / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return {}

    return change


def spoiled_archive(world: World) -> dict[str, str]:
    (folder_of(world) / f"{only(world).id}.tar.gz").write_bytes(b"other")
    return {}


def spoiled_diff(world: World) -> dict[str, str]:
    path = world.records_of(only(world).id) / "rendered.json"
    path.write_text(path.read_text().replace("+int one", "+int two"))
    return {}


def changed_release(world: World) -> dict[str, str]:
    (world.directory(only(world).id) / "lib/ollama/libggml.so.0").write_text("other")
    return {}


def other_packed(world: World) -> dict[str, str]:
    other = world.release("two")
    shutil.copy(world.pack(other) / "release.json", folder_with(world, "one") / "release.json")
    shutil.rmtree(world.directory(other.id))
    return {}


def folder_with(world: World, mark: str) -> Path:
    (server,) = (
        path for path in world.workspace.glob("releases/*/lib/ollama/llama-server") if mark in path.read_text()
    )
    return packing.staged(world.run()) / server.parents[2].name


def no_commit(world: World) -> dict[str, str]:
    shutil.rmtree(world.folder / "ollama")
    (world.records_of(only(world).id) / "scratch.json").unlink()
    return spoil("sources.json", **sources_of(world, git_dir="/nowhere"))(world)


def sources_of(world: World, **changes: str) -> dict[str, Any]:
    found = json.loads((world.records_of(only(world).id) / "sources.json").read_text())["ollama"]
    return {"ollama": found | changes}


def foreign_first_run(world: World) -> dict[str, str]:
    return {"firstrun": str(summary(world, release=built_of(only(world)) | {"series_sha256": "0" * 64}))}


def first_run_of_nothing(world: World) -> dict[str, str]:
    return {"firstrun": str(summary(world, release=None))}


def foreign_validation(world: World) -> dict[str, str]:
    path = world.folder / "validation.json"
    path.write_text(json.dumps({"release": only(world).id, "content_sha256": "0" * 64, "ok": True}))
    return {"validation": str(path)}


def no_validation(world: World) -> dict[str, str]:
    return {"validation": str(world.records_of(only(world).id) / "sources.json")}


def no_first_run(world: World) -> dict[str, str]:
    return {"firstrun": str(world.signers)}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (spoil("verification.json", content_sha256="0" * 64), DocumentInvalid, "another release than"),
        (spoil("rendered.json", series_sha256="0" * 64), DocumentInvalid, "another release than"),
        (spoil("release.json", series_sha256="0" * 64), DocumentInvalid, "another release than"),
        (spoiled_diff, DocumentInvalid, "digest beside it"),
        (spoiled_archive, DocumentInvalid, "not the archive"),
        (changed_release, ReleaseInvalid, "was changed"),
        (other_packed, DocumentInvalid, "another release than"),
        (no_commit, DocumentInvalid, "is not there any more"),
        (foreign_first_run, DocumentInvalid, "other sources"),
        (first_run_of_nothing, DocumentInvalid, "names no release"),
        (no_first_run, DocumentInvalid, "no report of a first run"),
        (foreign_validation, DocumentInvalid, r"--validation: .* other content"),
        (no_validation, DocumentInvalid, "not a Validation record"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    world: World, change: Callable[[World], dict[str, str]], error: type[Exception], said: str
) -> None:
    identifier, folder = only(world).id, folder_of(world)
    given = change(world)
    before = contents(folder)
    with pytest.raises(error, match=said):
        attestation.attest(world.run(), identifier, **given)
    assert contents(folder) == before
    assert not (folder.parent / ".documents").exists()


def test_a_key_is_needed_and_a_release_that_is_packed(world: World) -> None:
    identifier, folder = only(world).id, folder_of(world)
    before = contents(folder)
    with pytest.raises(SigningFailed, match=r"publish\.key is not set"):
        attestation.attest(world.run(publish__key=""), identifier)
    with pytest.raises(SigningFailed, match="no such key"):
        attestation.store(folder, world.packed(identifier), {"provenance": ("p.json", b"{}")}, world.folder / "none")
    assert contents(folder) == before
    shutil.rmtree(folder)
    with pytest.raises(RecordError, match="not packed yet"):
        attestation.attest(world.run(), identifier)


@pytest.mark.slow
def test_without_a_verification_no_statement_says_so(world: World) -> None:
    identifier = only(world).id
    (world.records_of(identifier) / "verification.json").unlink()
    world.compress_otherwise(identifier)  # the former statement is about another archive
    found = attestation.attest(world.run(), identifier)
    roles: set[Role] = {"probe", "sbom", "provenance"}
    assert set(found.documents) == roles
    assert statements.proof_of(found.folder, world.packed(identifier), world.signers) == ()
