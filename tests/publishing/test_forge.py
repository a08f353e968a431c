"""Releases at a forge: uploaded, fetched again, published once; refusals, limits, failures and killed runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.publishing import forge_kills
from tests.publishing.forge_release import ID, faults_of, make_publication
from tests.publishing.forge_server import READER, REPOSITORY, WRITER, Fault, ForgeServer, serving
from tests.shared import once
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.delivery_errors import (
    AlreadyPublished,
    CannotVerify,
    ForgeRefused,
    ForgeUnavailable,
    Tampered,
    UnknownKey,
)
from toolchain.core.errors import ConfigError, LockHeld, RecordError, ToolchainError
from toolchain.core.locks import held
from toolchain.core.run import Run
from toolchain.publishing import checking, forge, forge_transport
from toolchain.publishing.forge import UploadedRelease
from toolchain.publishing.published import Publication, signature_of
from toolchain.text import as_text

ARCHIVE = f"{ID}.tar.gz"
FILES = [ARCHIVE, "notes.md", "probe.gguf", "release.json", "release.json.sig", "sbom.cdx.json"]


@pytest.fixture
def server() -> Iterator[ForgeServer]:
    with serving() as forge:
        yield forge


@pytest.fixture(scope="module")
def publication(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    folder = once(tmp_path_factory, "forge-publication", make_publication)
    return Publication(folder / "publication")


class Uploads:
    """Uploads of one release to one forge; what was waited for is noted, not waited."""

    def __init__(self, server: ForgeServer, publication: Publication, folder: Path, capture: Any) -> None:
        self._server, self.publication, self.folder, self._capture = server, publication, folder, capture
        self.waits = list[float]()
        self.settings: dict[str, Any] = {}

    def __call__(self, **given: Any) -> UploadedRelease:
        (self.folder / "turboquant.yaml").touch()
        flags = {
            "workspace": str(self.folder / "workspace"),
            "publish.folder": str(self.publication.folder),
            "publish.forge": self._server.url,
            "publish.token_variable": "FORGE_TOKEN",
            **self.settings,
        }
        run = Run(config=load(file=self.folder / "turboquant.yaml", environ={}, flags=flags), console=Console())
        return forge.upload(run, ID, given.pop("repository", REPOSITORY), pause=self.waits.append, **given)

    def refused(self, kind: type[ToolchainError], **given: Any) -> ToolchainError:
        """The error that an upload ends with. It never says the token."""
        with pytest.raises(kind) as caught:
            self(**given)
        assert WRITER not in f"{caught.value}{self._capture.readouterr()}"
        return caught.value


@pytest.fixture
def upload(
    server: ForgeServer, publication: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> Uploads:
    monkeypatch.setenv("FORGE_TOKEN", WRITER)
    return Uploads(server, publication, tmp_path, capfd)


def test_a_release_is_stored_fetched_and_published_once(server: ForgeServer, upload: Uploads) -> None:
    server.immutable = True
    done = upload()
    (public,) = server.public()
    assert (done.tag, done.already_published, done.immutable, done.url) == (
        ID, False, True, f"{server.url}/{REPOSITORY}/releases/tag/{ID}",
    )  # fmt: skip
    assert [one.name for one in done.files] == FILES
    assert not any(one.kept for one in done.files)
    assert done.files[0].url == f"{server.url}/{REPOSITORY}/releases/download/{ID}/{ARCHIVE}"
    assert not faults_of(server, upload.publication)
    assert {asset.label for asset in public.assets.values()} == set(FILES)
    assert "What is new: a cache type." in public.body
    changes = [(method, path) for method, path in server.requests if method != "GET"]
    assert [method for method, _ in changes] == ["POST"] * 7 + ["PATCH"], "the draft, six files, one publication"
    assert f"published at {done.url}" in as_text(done)


def test_what_is_public_there_verifies(server: ForgeServer, upload: Uploads, tmp_path: Path) -> None:
    done = upload()
    (place,) = (one.url for one in done.files if one.name == "release.json")
    run = Run(config=load(environ={}, flags={"workspace": str(tmp_path / "workspace")}), console=Console())
    trust = checking.Trust(signers=upload.publication.allowed_signers)
    found = checking.verify(run, place, trust, files=False)
    assert (found.kind, found.release, found.sequence) == ("release", ID, 7)


def test_once_more_changes_nothing(server: ForgeServer, upload: Uploads) -> None:
    server.immutable = True
    first = upload()
    server.requests.clear()
    again = upload()
    assert again.already_published
    assert [(one.name, one.sha256, one.kept) for one in again.files] == [
        (one.name, one.sha256, True) for one in first.files
    ]
    assert {method for method, _ in server.requests} == {"GET"}
    assert "was published before, and is complete" in as_text(again)


def publish_another(server: ForgeServer) -> None:
    if not server.public():
        server.add(ID, draft=False)


@pytest.mark.parametrize("taken", ["tag", "published", "draft", "deleted", "between"])
def test_a_tag_that_is_taken_is_refused(server: ForgeServer, upload: Uploads, taken: str) -> None:
    server.immutable = True
    match taken:
        case "tag":
            server.tags.add(ID)
        case "published" | "draft":
            server.add(ID, draft=taken == "draft", body="another one")
        case "deleted":  # an immutable release was, and its tag with it
            server.burnt.add(ID)
        case "between":  # somebody else publishes while this run stores its files
            server.at_point = lambda point: publish_another(server) if point.startswith("PATCH") else None
    before = {one.id for one in server.public()}
    error = upload.refused(AlreadyPublished)
    assert ID in error.message
    assert error.hint
    assert {one.id for one in server.public()} == before or taken == "between"
    assert server.publications == 0


def test_a_draft_that_a_run_left_is_completed(server: ForgeServer, upload: Uploads) -> None:
    server.faults = [
        Fault("POST", "name=probe.gguf", "cut", at=1000, times=1),
        Fault("GET", "/assets", "answer", status=400, after=1),  # the run ends there, with half an upload
    ]
    upload.refused(ForgeRefused)
    (draft,) = server.releases.values()
    assert {one.name: one.state for one in draft.assets.values()} == {ARCHIVE: "uploaded", "probe.gguf": "starter"}
    server.requests.clear()
    done = upload()
    assert [one.name for one in done.files if one.kept] == [ARCHIVE]
    assert [method for method, _ in server.requests if method == "DELETE"] == ["DELETE"]
    assert len(server.releases) == 1
    assert not faults_of(server, upload.publication)


def test_a_stored_file_with_other_content_is_replaced_in_a_draft(server: ForgeServer, upload: Uploads) -> None:
    server.faults = [Fault("PATCH", "", "answer", status=400)]
    upload.refused(ForgeRefused)
    (draft,) = server.releases.values()
    stored = {one.name: one for one in draft.assets.values()}
    stored["probe.gguf"].data = stored["probe.gguf"].data[:-1] + b"?"
    stored[ARCHIVE].data += b"?"
    done = upload()
    assert sorted(one.name for one in done.files if not one.kept) == [ARCHIVE, "probe.gguf"]
    assert not faults_of(server, upload.publication)


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (Fault("POST", "/releases$", "lost"), [0.5]),
        (Fault("POST", "/releases$", "lost-answer", status=502), [0.5]),
        (Fault("POST", "/releases$", "drop", times=3), [0.5, 1, 2]),
        (Fault("POST", "name=probe", "cut", at=700), [0.5]),
        (Fault("POST", "name=.*gz&", "cut", at=100_000, times=2), [0.5, 1]),
        (Fault("POST", "name=probe", "lost"), [0.5]),
        (Fault("POST", "name=probe", "lost-answer", status=422, body={"errors": [{"code": "already_exists"}]}), [0.5]),
        (Fault("POST", "name=probe", "answer", status=502, body=b"<html>Bad Gateway</html>", times=2), [0.5, 1]),
        (Fault("PATCH", "", "lost"), [0.5]),
        (Fault("PATCH", "", "lost-answer", status=504), [0.5]),
        (Fault("PATCH", "", "answer", status=503, headers={"Retry-After": "7"}), [7]),
        (Fault("GET", "assets/", "drop"), [0.5]),
        (Fault("GET", "/store/probe", "short", at=100), [0.5]),
        (Fault("GET", "/store/probe", "answer", status=403), [0.5]),
        (Fault("GET", "/tags/", "answer", status=500), [0.5]),
        (Fault("POST", "name=probe", "answer", status=429, headers={"Retry-After": "30"}), [30]),
        (Fault("POST", "/releases$", "answer", status=403, headers={"Retry-After": "5"}), [5]),
        (Fault("GET", "/tags/", "answer", status=403, body={"message": "a secondary rate limit"}), [60]),
        (Fault("PATCH", "", "answer", status=429, headers={"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}), [60]),
        (
            Fault("PATCH", "", "answer", status=403, headers={
                "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1000040", "Date": "Mon, 12 Jan 1970 13:46:40 GMT",
            }),
            [40],
        ),
    ],
)  # fmt: skip
def test_what_passes_is_waited_for(server: ForgeServer, upload: Uploads, fault: Fault, waits: list[float]) -> None:
    server.faults = [fault]
    upload()
    assert upload.waits == waits
    assert (server.publications, len(server.releases)) == (1, 1)
    assert not faults_of(server, upload.publication)


def test_a_draft_that_the_list_does_not_show_yet_is_deleted_later(server: ForgeServer, upload: Uploads) -> None:
    server.lag = 1
    server.faults = [Fault("POST", "/releases$", "lost")]
    upload()
    assert (server.publications, len(server.releases)) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("GET", "/tags/", "answer", status=429, headers={"Retry-After": "4000"}), "in 4000 s or more"),
        (Fault("POST", "/releases$", "drop", times=99), "given up after 8 tries"),
        (Fault("POST", "name=probe", "answer", status=502, times=99), "given up after 8 tries: 502"),
        (Fault("GET", "/store/probe", "short", at=10, times=99), "given up after 8 tries"),
    ],
)
def test_a_forge_that_keeps_failing(server: ForgeServer, upload: Uploads, fault: Fault, said: str) -> None:
    server.faults = [fault]
    assert said in str(upload.refused(ForgeUnavailable))
    assert not server.public()
    assert sum(upload.waits) <= 900
    server.faults = []
    upload()
    assert (server.publications, len(server.releases)) == (1, 1)


def test_a_download_that_trickles_is_given_up(
    server: ForgeServer, upload: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forge_transport, "_ANSWER_S", 0.1)
    monkeypatch.setattr(forge_transport, "_SLOWEST", 1 << 40)
    upload.settings["publish.forge_wait_s"] = 0
    server.faults = [Fault("GET", "/store/sbom", "trickle", times=99)]
    assert "no end after" in str(upload.refused(ForgeUnavailable))


def test_no_forge_at_all(upload: Uploads) -> None:
    upload.settings["publish.forge"] = "http://127.0.0.1:9"
    assert "refused" in str(upload.refused(ForgeUnavailable))


@pytest.mark.parametrize("digests", [True, False])
def test_other_content_on_download_leaves_a_draft(server: ForgeServer, upload: Uploads, digests: bool) -> None:
    server.tells_digests = digests
    server.faults = [Fault("GET", "/store/probe", "wrong")]
    error = upload.refused(Tampered)
    assert "probe.gguf: the forge gives other content back" in error.message
    assert "it stays a draft" in error.message
    assert not server.public()


def test_a_foreign_file_in_the_draft(server: ForgeServer, upload: Uploads) -> None:
    server.faults = [Fault("PATCH", "", "answer", status=400)]
    upload.refused(ForgeRefused)
    (draft,) = server.releases.values()
    asset = next(iter(draft.assets.values()))
    draft.assets[1] = type(asset)(1, "extra", "extra", b"x", "uploaded")
    assert "extra" in str(upload.refused(Tampered))
    assert not server.public()


def test_a_published_release_that_was_changed(server: ForgeServer, upload: Uploads) -> None:
    upload()
    (public,) = server.public()
    asset = next(iter(public.assets.values()))
    asset.data = b"x" + asset.data[1:]
    assert "it is public" in str(upload.refused(Tampered))
    del public.assets[asset.id]
    assert f"without {asset.name}" in str(upload.refused(Tampered))


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "$FORGE_TOKEN: the forge's token is missing"),
        ("two words", "malformed"),
        ("tok\x01en", "malformed"),
        ("unknown", "does not accept the token: Bad credentials: (token)"),
        (READER, "lacks a permission (contents=write)"),
    ],
)
def test_tokens_that_do_not_suffice(
    server: ForgeServer, upload: Uploads, token: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_TOKEN", token)
    with pytest.raises((ConfigError, ForgeRefused)) as caught:
        upload()
    assert said in caught.value.message
    assert not token or token not in str(caught.value)
    assert not server.releases


def test_no_token_in_the_clear(upload: Uploads) -> None:
    upload.settings["publish.forge"] = "http://forge.example/api"
    assert "in the clear" in str(upload.refused(ConfigError))


def test_the_token_stays_with_the_forge(
    server: ForgeServer, upload: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password credentials\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    upload()  # with the netrc's credentials instead of its own it would be refused
    assert server.store
    assert server.store.leaks == []
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "netrc"]
    assert not any(WRITER in path.read_text() for path in written)


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/uploads", "http://uploads.elsewhere.example"])
def test_uploads_go_to_the_forge_alone(
    server: ForgeServer, upload: Uploads, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = {"id": 5, "tag_name": ID, "draft": True, "upload_url": f"{place}{{?name,label}}"}
    server.faults = [
        Fault("POST", "/releases$", "answer", status=201, body=draft),
        Fault("GET", "/releases/5/assets", "answer", status=200, body=[]),
    ]
    assert "not its own host" in str(upload.refused(ForgeRefused))


@pytest.mark.parametrize(
    ("api", "url", "own"),
    [
        ("https://api.github.com", "https://uploads.github.com/repos", True),
        ("https://api.github.com", "https://api.github.com/repos", True),
        ("https://api.github.com", "http://uploads.github.com/repos", False),
        ("https://api.github.com", "https://uploads.github.com.example/repos", False),
        ("https://api.github.com", "https://uploads.github.com:444/repos", False),
        ("https://api.github.com", "https://uploads.github.com@example.com/", False),
        ("https://myapi.com/api/v3", "https://myuploads.com/", False),
        ("https://forge.example/api/v3", "https://forge.example/api/uploads", True),
    ],
)
def test_hosts_that_get_the_token(api: str, url: str, own: bool) -> None:
    assert forge_transport.Transport(api, "t", patience_s=0, note=print).is_own(url) is own


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST", "/releases$", "answer", status=301, headers={"Location": "/x"}), "renamed or moved"),
        (Fault("POST", "/releases$", "answer", status=404, body={"message": "Not Found"}), "knows no such thing"),
        (Fault("GET", "releases/tags", "answer", status=200, body=[]), "unexpected answer"),
        (Fault("GET", "releases/tags", "answer", status=200, body=b"<html>"), "unexpected answer"),
        (
            Fault("POST", "/releases$", "answer", status=422, body={
                "message": "Validation Failed", "errors": [{"field": "target_commitish", "code": "invalid"}]}),
            "target_commitish: invalid",
        ),
        (
            Fault("POST", "/releases$", "answer", status=403, body={"message": "by SAML"}, headers={
                "X-GitHub-SSO": "required; url=https://forge/sso"}),
            "https://forge/sso",
        ),
        (Fault("POST", "name=", "answer", status=413, body={"message": "too large"}), "413 too large"),
    ],
)  # fmt: skip
def test_what_the_forge_refuses(server: ForgeServer, upload: Uploads, fault: Fault, said: str) -> None:
    server.faults = [fault]
    assert said in str(upload.refused(ForgeRefused))
    assert upload.waits == []
    assert not server.public()


def test_a_name_that_the_forge_changes(server: ForgeServer, upload: Uploads) -> None:
    server.renames = lambda name: name.replace("sbom.cdx", "sbom..cdx")
    assert "the forge names it sbom..cdx.json" in str(upload.refused(ForgeRefused))
    (draft,) = server.releases.values()
    assert "sbom..cdx.json" not in {one.name for one in draft.assets.values()}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repository": "name"}, "expected owner/name"),
        ({"repository": "owner/name/../other"}, "expected owner/name"),
        ({"tag": "a b"}, "not a name for a tag"),
        ({"tag": "../x"}, "not a name for a tag"),
    ],
)
def test_names_that_are_none(upload: Uploads, given: dict[str, str], said: str) -> None:
    assert said in str(upload.refused(ConfigError, **given))


def test_a_tag_and_a_target_of_ones_own(server: ForgeServer, upload: Uploads) -> None:
    upload(tag="v1.0+mac", target="release", prerelease=True)
    (public,) = server.public()
    assert (public.tag_name, public.target, public.prerelease) == ("v1.0+mac", "release", True)


@pytest.mark.parametrize(
    ("change", "expected", "said"),
    [
        ("archive", Tampered, "not the file that release.json states"),
        ("release.json", Tampered, "not what was signed"),
        ("missing", CannotVerify, "probe.gguf missing"),
        ("signature", CannotVerify, "cannot be verified"),
        ("extra", Tampered, "does not list it"),
        ("link", Tampered, "not a regular file"),
        ("signers", UnknownKey, "does not list"),
        ("nothing", RecordError, "there is no PublishedRelease"),
    ],
)
def test_a_release_that_is_not_whole(
    server: ForgeServer, upload: Uploads, tmp_path: Path, change: str, expected: type[ToolchainError], said: str
) -> None:
    upload.publication = made = make_publication(tmp_path)
    folder = made.release(ID)
    match change:
        case "archive":
            (folder / ARCHIVE).write_bytes(b"x" * 200_000)
        case "release.json":
            made.release_file(ID).write_text(made.release_file(ID).read_text().replace("linux", "other"))
        case "missing":
            (folder / "probe.gguf").unlink()
        case "signature":
            signature_of(made.release_file(ID)).unlink()
        case "extra":
            (folder / "secret.txt").write_text("x")
        case "link":
            (folder / "probe.gguf").rename(tmp_path / "probe.gguf")
            (folder / "probe.gguf").symlink_to(tmp_path / "probe.gguf")
        case "signers":
            made.allowed_signers.write_text("")
        case "nothing":
            upload.publication = Publication(tmp_path / "elsewhere")
    assert said in str(upload.refused(expected))
    assert server.requests == []


def test_two_runs_at_once(upload: Uploads, tmp_path: Path) -> None:
    with held(tmp_path / "workspace" / f"upload-{ID}.lock", "busy", hint=""):
        upload.refused(LockHeld)


@pytest.mark.slow
@pytest.mark.sampled(0)
def test_killed_runs_are_continued(publication: Publication, tmp_path: Path) -> None:
    """A sample; `python -m tests.publishing.forge_kills` does a hundred."""
    told = forge_kills.kill(publication, tmp_path, kills=2, seed=1)
    assert told.faults == []
    assert told.killed == 2
