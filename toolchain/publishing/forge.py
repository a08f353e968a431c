"""`release.upload`: a release of the publication as a release of a forge: drafted, stored, fetched again, published.

    look for the tag -> draft -> store each file -> fetch each file again and compare -> publish, once

A published release may be immutable, and its tag is then used up, so that nothing is public before all of it is proven.
The draft is the state of a run: its text holds the digest of release.json, by which a later run finds it and goes on.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ..core import locks, templates
from ..core.delivery_errors import AlreadyPublished, CannotVerify, ForgeRefused, Tampered
from ..core.errors import ConfigError
from ..core.records import read, record, sha256_file
from ..core.run import Run
from . import packing, signature
from .forge_client import Forge, ForgeAsset, ForgeRelease
from .forge_transport import Transport
from .publication import files_of
from .published import (
    PRINCIPAL,
    RELEASE_FILE,
    RELEASE_NAMESPACE,
    SIGNATURE_SUFFIX,
    Publication,
    PublishedRelease,
    is_file_name,
    signature_of,
)

_LARGEST = (2 << 30) - 1
"""bytes of a file that GitHub takes"""
_LONGEST_NOTES = 100_000
"""characters; GitHub takes 125,000 as the text of a release"""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@record
class StoredFile:
    """A file of a forge's release, as it was fetched again."""

    name: str
    size: int
    sha256: str
    url: str
    kept: bool
    """whether an earlier run had stored it"""


@record
class UploadedRelease:
    """A release at a forge."""

    release: str
    repository: str
    tag: str
    url: str
    already_published: bool
    """by an earlier run, with the same content"""
    immutable: bool | None
    """whether the forge lets nobody change it any more; null: it does not tell"""
    files: tuple[StoredFile, ...]
    seconds: float


@record
class _File:
    path: Path
    size: int
    sha256: str

    def is_stored_as(self, asset: ForgeAsset) -> bool:
        """Whether a stored file may be this one, by what the forge tells about it."""
        same = asset.digest in (None, "", f"sha256:{self.sha256}")
        return asset.state == "uploaded" and asset.size == self.size and same


def upload(
    run: Run,
    identifier: str,
    repository: str = "",
    *,
    tag: str = "",
    target: str = "",
    prerelease: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> UploadedRelease:
    """Make a release of the publication a release of a forge's repository (owner/name), under a tag (default: its id).

    The draft stays a draft when its files do not come back as they were stored. Raises `AlreadyPublished`,
    `ForgeRefused`, `ForgeUnavailable`, `Tampered`, `CannotVerify` and the other errors of `signature.verify`.
    """
    began = time.monotonic()
    settings = run.config.publish
    repository, tag = repository or settings.repository, tag or identifier
    _check_names(identifier, repository, tag)
    publication = packing.publication(run)
    release, files, text = _complete(run, publication, identifier)
    marker = _marker(files[RELEASE_FILE].sha256)
    body = templates.render(
        "publishing/forge.md.j2", release=release, notes=text, marker=marker, principal=PRINCIPAL,
        namespace=RELEASE_NAMESPACE,
    )  # fmt: skip
    transport = Transport(
        settings.forge, _token(settings.forge, settings.token_variable),
        patience_s=settings.forge_wait_s, note=run.console.warn, pause=pause,
    )  # fmt: skip
    forge = Forge(transport, repository)
    busy = f"{identifier}: another run uploads it"
    try:
        with locks.held(run.workspace / f"upload-{identifier}.lock", busy, hint="wait until it has ended"):
            found = _public(forge, tag, marker)
            draft = found or _draft(
                forge, tag, marker,
                lambda: forge.create(
                    tag, target=target, title=identifier, body=body, marker=marker, prerelease=prerelease
                ),
            )  # fmt: skip
            before = _stored(forge, draft, files)
            stored = before if found else _store(run, forge, draft, files, before)
            _compare(run, forge, draft, files, stored)
            public = found or _publish(forge, draft, marker, latest=not prerelease)
    finally:
        transport.close()
    return UploadedRelease(
        release=identifier,
        repository=repository,
        tag=tag,
        url=public.html_url,
        already_published=found is not None,
        immutable=public.immutable,
        files=tuple(
            StoredFile(
                name=name,
                size=files[name].size,
                sha256=files[name].sha256,
                url=asset.browser_download_url,
                kept=name in before and before[name].id == asset.id,
            )
            for name, asset in sorted(forge.assets(public).items())
        ),
        seconds=round(time.monotonic() - began, 1),
    )


def _check_names(identifier: str, repository: str, tag: str) -> None:
    if not is_file_name(identifier):
        raise ConfigError(
            f"--release {identifier!r}: not the name of a release", hint="see releases/ of publish.folder"
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII) or ".." in repository:
        raise ConfigError(
            f"--repo {repository!r}: expected owner/name", hint="--repo owner/name, or publish.repository"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,199}", tag, re.ASCII) or ".." in tag or tag.endswith((".", ".lock")):
        raise ConfigError(f"--tag {tag!r}: not a name for a tag", hint="letters, digits, dots and dashes")


def _token(api: str, variable: str) -> str:
    """The token, from the environment alone: an argument or a setting would be seen by others."""
    token = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(
            f"${variable}: the forge's token is {'malformed' if token else 'missing'}",
            hint=f"export {variable}=... with write access to the repository's contents; see publish.token_variable",
        )
    if urlsplit(api).scheme == "http" and urlsplit(api).hostname not in _LOOPBACK:
        raise ConfigError(f"publish.forge {api}: http would send the token in the clear", hint="https://")
    return token


def _complete(run: Run, publication: Publication, identifier: str) -> tuple[PublishedRelease, dict[str, _File], str]:
    """The signed release.json, all its files by name, each as release.json states it, and the notes."""
    folder, main = publication.release(identifier), publication.release_file(identifier)
    release = read(main, PublishedRelease)
    signers = run.config.publish.signers
    signature.verify_file(
        main, RELEASE_NAMESPACE, Path(signers).expanduser() if signers else publication.allowed_signers,
        revoked=Path(run.config.publish.revoked).expanduser() if run.config.publish.revoked else None,
    )  # fmt: skip
    if release.id != identifier:
        raise Tampered(f"{main}: it is the release {release.id}", hint="publish it again")
    stated = {one.name: one for one in files_of(release)}
    wanted = {RELEASE_FILE, *stated}
    files = {}
    with run.console.step(f"files of {identifier}"):
        for path in sorted(folder.iterdir()):
            if path.name not in wanted and path.name.removesuffix(SIGNATURE_SUFFIX) not in wanted:
                raise Tampered(f"{path}: release.json does not list it", hint="move it elsewhere")
            if path.is_symlink() or not path.is_file():
                raise Tampered(f"{path}: not a regular file", hint="publish the release again")
            found = _File(path=path, size=path.stat().st_size, sha256=sha256_file(path))
            one = stated.get(path.name)
            if one and (one.size, one.sha256) != (found.size, found.sha256):
                raise Tampered(f"{path}: not the file that release.json states", hint="publish the release again")
            if not 0 < found.size <= _LARGEST:
                raise ForgeRefused(f"{path}: {found.size} bytes; a forge takes 1 to {_LARGEST}")
            files[path.name] = found
    if missing := sorted({*wanted, signature_of(main).name} - set(files)):
        raise CannotVerify(f"{folder}: {', '.join(missing)} missing", hint="publish the release again")
    notes = release.documents.get("notes")
    text = files[notes.name].path.read_text(encoding="utf-8", errors="replace") if notes else ""
    return release, files, text.strip() if len(text) <= _LONGEST_NOTES else ""


def _marker(digest: str) -> str:
    return f"<!-- turboquant release.json sha256:{digest} -->"


def _public(forge: Forge, tag: str, marker: str) -> ForgeRelease | None:
    """The release that an earlier run has published. Raises `AlreadyPublished` when the tag is used by another."""
    found = forge.published(tag)
    if found and marker not in (found.body or ""):
        raise AlreadyPublished(
            f"{forge.repository}: {tag} is published with other content: {found.html_url}",
            hint="a published release is never changed: build again, or name another --tag",
        )
    if found is None and forge.has_tag(tag):
        raise AlreadyPublished(
            f"{forge.repository}: it has a tag {tag} without a release", hint="name another --tag, or delete that one"
        )
    return found


def _draft(forge: Forge, tag: str, marker: str, create: Callable[[], ForgeRelease]) -> ForgeRelease:
    """The draft of an earlier run, or a new one."""
    drafts = forge.drafts(tag)
    for other in drafts:
        if marker not in (other.body or ""):
            raise AlreadyPublished(
                f"{forge.repository}: there is a draft for {tag} with other content: {other.html_url}",
                hint="delete that draft, or name another --tag",
            )
    return drafts[0] if drafts else create()


def _stored(forge: Forge, draft: ForgeRelease, files: dict[str, _File]) -> dict[str, ForgeAsset]:
    """What the forge has. Raises `Tampered` for a file that nobody of ours stores."""
    found = forge.assets(draft)
    if strange := sorted(set(found) - set(files)):
        raise Tampered(
            f"{draft.html_url or draft.tag_name}: it has files that are none of the release: {', '.join(strange)}",
            hint="delete them there" if draft.draft else "tell everybody who may have fetched it",
        )
    return found


def _store(
    run: Run, forge: Forge, draft: ForgeRelease, files: dict[str, _File], before: dict[str, ForgeAsset]
) -> dict[str, ForgeAsset]:
    """Store what is missing, and what is only half there, the large ones first; all that is stored then, by name."""
    stored = {}
    for name, file in sorted(files.items(), key=lambda one: -one[1].size):
        asset = before.get(name)
        if asset and not file.is_stored_as(asset):
            forge.delete_asset(asset)
            asset = None
        if asset is None:
            with run.console.step(f"upload of {name}, {file.size / 1e6:.1f} MB"):
                asset = forge.upload(draft, file.path, file.is_stored_as)
        stored[name] = asset
    return stored


def _compare(
    run: Run, forge: Forge, draft: ForgeRelease, files: dict[str, _File], stored: dict[str, ForgeAsset]
) -> None:
    """Fetch every file. Raises `Tampered` for one that is not what was stored."""
    state = "it stays a draft" if draft.draft else "it is public"
    if missing := sorted(set(files) - set(stored)):
        raise Tampered(f"{draft.html_url or draft.tag_name}: without {', '.join(missing)}; {state}")
    for name, file in files.items():
        with run.console.step(f"download of {name}") as step:
            back = forge.download(stored[name], functools.partial(step.update, total=file.size))
        if (back.size, back.sha256) != (file.size, file.sha256):
            raise Tampered(
                f"{name}: the forge gives other content back: {back.size} bytes, SHA-256 {back.sha256}; {state}",
                hint=f"look at {draft.html_url or draft.tag_name}; delete the file there, and run it again",
            )


def _publish(forge: Forge, draft: ForgeRelease, marker: str, *, latest: bool) -> ForgeRelease:
    """Publish the draft, after a last look whether it is the only one: a lost answer may have left a second."""
    for other in forge.drafts(draft.tag_name):
        if other.id != draft.id and marker in (other.body or ""):
            forge.delete_draft(other)
    public = forge.publish(draft, latest=latest)
    if public.draft or public.tag_name != draft.tag_name:
        raise ForgeRefused(
            f"{draft.tag_name}: the forge's answer is a {'draft' if public.draft else 'release'} {public.tag_name}",
            hint=f"look at {public.html_url}",
        )
    return public
