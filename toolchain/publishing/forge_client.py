"""The releases of one repository at a forge, by GitHub's REST interface.

Every request is repeated after a failure that may pass, within a bound for the whole run. What a lost answer leaves
unknown is looked up before the request is repeated: a release that was created, an asset that was stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ..core.delivery_errors import AlreadyPublished, ForgeRefused
from ..core.printable import printable
from ..core.records import record
from . import forge_errors
from .forge_errors import LaterError, NotThereError, RejectedError
from .forge_transport import Transport

T = TypeVar("T")
_PAGE, _MOST_PAGES = 100, 100
_BURNT = "immutable release"
"""what GitHub says about the tag of one, also after it was deleted"""


@record
class ForgeAsset:
    """A file of a release."""

    id: int
    name: str
    size: int
    state: str = "uploaded"
    """starter: its upload began, and did not end"""
    digest: str | None = None
    """sha256:HEX, where the forge states it"""
    browser_download_url: str = ""


@record
class ForgeRelease:
    """A release, also one that is a draft."""

    id: int
    tag_name: str
    draft: bool
    body: str | None = None
    html_url: str = ""
    upload_url: str = ""
    immutable: bool | None = None
    """whether the forge lets nobody change it any more, as far as it tells"""


@record
class Downloaded:
    """What came back."""

    size: int
    sha256: str


class Forge:
    """The releases of `repository` (owner/name)."""

    def __init__(self, transport: Transport, repository: str) -> None:
        self._http = transport
        self._root = f"{transport.api}/repos/{repository}"
        self.repository = repository

    # -- looking -----------------------------------------------------------------------------------

    def published(self, tag: str) -> ForgeRelease | None:
        """The published release of a tag. The forge never finds a draft by its tag."""
        try:
            return self._get(f"{self._root}/releases/tags/{quote(tag)}", ForgeRelease)
        except NotThereError:
            return None

    def has_tag(self, tag: str) -> bool:
        """Whether the repository has a tag of this name."""
        try:
            self._get(f"{self._root}/git/ref/tags/{quote(tag)}", dict[str, Any])
        except (NotThereError, RejectedError):  # 409: an empty repository
            return False
        return True

    def drafts(self, tag: str) -> list[ForgeRelease]:
        """All drafts for a tag, the oldest first."""
        url = f"{self._root}/releases"
        listed = self._there(self.repository, lambda: list(self._pages(url, ForgeRelease)))
        return sorted((one for one in listed if one.draft and one.tag_name == tag), key=lambda one: one.id)

    def release(self, identifier: int) -> ForgeRelease:
        """A release, also a draft, by the forge's own number."""
        return self._there(f"release {identifier}", lambda: self._get(self._release_url(identifier), ForgeRelease))

    def assets(self, release: ForgeRelease) -> dict[str, ForgeAsset]:
        """The files of a release by name."""
        url = f"{self._release_url(release.id)}/assets"
        found = self._there(f"the assets of {release.tag_name}", lambda: list(self._pages(url, ForgeAsset)))
        return {one.name: one for one in found}

    # -- changing ----------------------------------------------------------------------------------

    def create(self, tag: str, *, target: str, title: str, body: str, marker: str, prerelease: bool) -> ForgeRelease:
        """Make a draft, or find the one that a lost answer was about, by its `marker`. Raises `AlreadyPublished`."""
        asked = {"tag_name": tag, "name": title, "body": body, "draft": True, "prerelease": prerelease}
        asked |= {"target_commitish": target} if target else {}

        def attempt() -> ForgeRelease:
            try:
                return self._http.answer(
                    "POST", f"{self._root}/releases", ForgeRelease, f"a draft for {tag}", json=asked
                )
            except RejectedError as error:
                raise _refused(tag, error) from None

        def lost() -> ForgeRelease | None:
            return next((one for one in self.drafts(tag) if marker in (one.body or "")), None)

        return self._there(f"{self.repository}", lambda: self._http.repeated(f"a draft for {tag}", attempt, lost))

    def upload(self, release: ForgeRelease, file: Path, good: Callable[[ForgeAsset], bool]) -> ForgeAsset:
        """Store a file under its own name. A stored one that is not `good` is deleted first, as half uploads are."""
        name, what = file.name, f"upload of {file.name}"
        url = f"{self._upload_url(release)}?name={quote(name)}&label={quote(name)}"

        def attempt() -> ForgeAsset:
            with file.open("rb") as data:
                try:
                    return self._http.answer("POST", url, ForgeAsset, what, data=data)
                except RejectedError as error:
                    if "already_exists" in error.codes or "already_exists" in str(error):
                        raise LaterError("the forge has a file of this name") from None
                    raise ForgeRefused(f"{what}: {error}") from None

        def lost() -> ForgeAsset | None:
            stored = self.assets(release).get(name)
            if stored and not good(stored):
                self.delete_asset(stored)
                return None
            return stored

        found = self._there(what, lambda: self._http.repeated(what, attempt, lost))
        if found.name != name:
            self.delete_asset(found)
            raise ForgeRefused(
                f"{what}: the forge names it {printable(found.name)}", hint="use letters, digits, dots and dashes"
            )
        return found

    def delete_asset(self, asset: ForgeAsset) -> None:
        """Delete a file of a draft; one that is gone already is fine."""
        self._delete(f"{self._root}/releases/assets/{asset.id}", f"deletion of {asset.name}")

    def delete_draft(self, release: ForgeRelease) -> None:
        """Delete a draft."""
        self._delete(self._release_url(release.id), f"deletion of the draft {release.id}")

    def publish(self, release: ForgeRelease, *, latest: bool) -> ForgeRelease:
        """Make a draft public, once. Raises `AlreadyPublished` when somebody else has used its tag."""
        what = f"publication of {release.tag_name}"
        asked = {"draft": False, "tag_name": release.tag_name, "make_latest": str(latest).lower()}

        def attempt() -> ForgeRelease:
            try:
                return self._http.answer("PATCH", self._release_url(release.id), ForgeRelease, what, json=asked)
            except RejectedError as error:
                raise _refused(release.tag_name, error) from None

        def lost() -> ForgeRelease | None:
            found = self.release(release.id)
            return None if found.draft else found

        return self._there(what, lambda: self._http.repeated(what, attempt, lost))

    def download(self, asset: ForgeAsset, progress: Callable[[int], None] = lambda _: None) -> Downloaded:
        """Fetch a stored file as anybody would get it, and tell its size and digest."""
        what = f"download of {asset.name}"

        def attempt() -> Downloaded:
            digest, size = hashlib.sha256(), 0
            with self._http.download(f"{self._root}/releases/assets/{asset.id}", asset.size, what) as blocks:
                for block in blocks:
                    digest.update(block)
                    size += len(block)
                    progress(size)
            if size < asset.size:
                raise LaterError(f"the download ended after {size} of {asset.size} bytes")
            return Downloaded(size=size, sha256=digest.hexdigest())

        return self._there(what, lambda: self._http.repeated(what, attempt))

    # -- requests ----------------------------------------------------------------------------------

    def _get(self, url: str, kind: type[T]) -> T:
        return self._http.repeated(url, lambda: self._http.answer("GET", url, kind, url))

    def _pages(self, url: str, kind: type[T]) -> Iterator[T]:
        for page in range(1, _MOST_PAGES + 1):
            found: list[T] = self._get(f"{url}?per_page={_PAGE}&page={page}", list[kind])  # type: ignore[valid-type]
            yield from found
            if len(found) < _PAGE:
                return

    def _delete(self, url: str, what: str) -> None:
        def attempt() -> bool:
            try:
                self._http.send("DELETE", url, what)
            except NotThereError:
                pass
            except RejectedError as error:
                raise ForgeRefused(f"{what}: {error}") from None
            return True

        self._http.repeated(what, attempt)

    def _there(self, what: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except NotThereError:
            raise forge_errors.not_there(what) from None
        except RejectedError as error:
            raise ForgeRefused(f"{what}: {error}") from None

    def _release_url(self, identifier: int) -> str:
        return f"{self._root}/releases/{identifier}"

    def _upload_url(self, release: ForgeRelease) -> str:
        """Where the forge takes files: on its own host, or on uploads.HOST for api.HOST; nobody else gets the token."""
        url = release.upload_url.partition("{")[0]
        if not self._http.is_own(url):
            raise ForgeRefused(
                f"{release.tag_name}: the forge wants uploads at {printable(url, 100)}, not its own host"
            )
        return url


def _refused(tag: str, error: RejectedError) -> Exception:
    """What it means that a release was rejected."""
    if _BURNT in str(error):
        return AlreadyPublished(
            f"{tag}: an immutable release has used this tag, also if that was deleted: {error}",
            hint="its name is gone for good: build again, or name another --tag",
        )
    if "already_exists" in error.codes:
        return AlreadyPublished(f"{tag}: the tag has a published release: {error}", hint="name another --tag")
    return ForgeRefused(f"{tag}: the forge rejects the release: {error}", hint="see --tag and --target")
