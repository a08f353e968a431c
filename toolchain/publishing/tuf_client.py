"""Reading a publication with The Update Framework: no rollback, no freeze, no mix of versions.

Needs the extra `release`: whoever imports this module calls `extras.require` first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tuf.api import exceptions
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from ..core import locks, records
from ..core.delivery_errors import CannotVerify, ChannelExpired, ForgeUnavailable, OlderSequence, Tampered
from ..core.errors import ToolchainError
from . import download

_LOCK_WAIT_S = 60.0
_LARGEST = 1 << 20
"""bytes of a role's metadata"""


class _Fetcher(FetcherInterface):
    """Downloads of ours, bounded in time; TUF bounds their size. Names are paths in the publication."""

    def __init__(self, origin: download.Source) -> None:
        self._origin = origin

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._origin.chunks(url, _LARGEST)
        except FileNotFoundError as error:
            raise exceptions.DownloadHTTPError(f"{self._origin.where}/{url} is not there", 404) from error


class TufClient:
    """A client with a metadata folder of its own, which remembers the versions that it has seen."""

    def __init__(self, origin: download.Source, root: Path, folder: Path) -> None:
        self._origin = origin
        self._folder = folder
        try:
            self._root = records.read_bytes(root, limit=_LARGEST)
        except OSError as error:
            raise CannotVerify(
                f"{root}: {error.strerror}, so nothing can be verified by TUF",
                hint="take root.json from its publisher by a way that you trust",
            ) from error

    def read(self, *names: str) -> dict[str, bytes]:
        """Files of the publication, as the newest metadata states them.

        Raises `OlderSequence` for older metadata than was seen before, `ChannelExpired`, `Tampered`, `CannotVerify`,
        `ForgeUnavailable`, `LockHeld`.
        """
        metadata = self._folder / "metadata"
        targets = self._folder / "targets"
        busy = f"{self._folder}: another run uses this metadata"
        with locks.held(self._folder / ".lock", busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S):
            for one in (metadata, targets):
                records.make_folder(one)
            try:
                return self._read(metadata, targets, names)
            finally:
                shutil.rmtree(targets, ignore_errors=True)

    def _read(self, metadata: Path, targets: Path, names: tuple[str, ...]) -> dict[str, bytes]:
        where = f"{self._origin.where}/tuf"
        try:
            updater = Updater(
                str(metadata), "tuf/metadata", str(targets), "tuf/targets", fetcher=_Fetcher(self._origin),
                config=UpdaterConfig(root_max_length=_LARGEST, snapshot_max_length=_LARGEST), bootstrap=self._root,
            )  # fmt: skip
            updater.refresh()
            found = {}
            for name in names:
                target = updater.get_targetinfo(name)
                if target is None:
                    raise CannotVerify(f"{where}: its metadata does not list {name}", hint="is the name right?")
                found[name] = Path(updater.download_target(target)).read_bytes()
            return found
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            raise _explained(error, where) from error


def _explained(error: Exception, where: str) -> ToolchainError:
    """TUF's refusal as one of ours."""
    again = "fetch it again; if it stays, tell its publisher"
    match error:
        case exceptions.ExpiredMetadataError():
            return ChannelExpired(f"{where}: {error}", hint="its publisher has to run ./inv release.refresh")
        case exceptions.BadVersionNumberError():
            return OlderSequence(f"{where}: older metadata than was seen before: {error}", hint=again)
        case exceptions.DownloadLengthMismatchError():
            return Tampered(f"{where}: more bytes than are signed: {error}", hint=again)
        case exceptions.DownloadError():
            return ForgeUnavailable(f"{where}: {error}", hint="is the URL right? else try later")
    return Tampered(f"{where}: not what its keys signed: {error}", hint=again)
