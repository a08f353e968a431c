"""The verification that a release is installed with: required before, and kept beside the manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..build import modes
from ..build import release as built
from ..core import records
from ..core.config import DeployConfig
from ..core.console import Console
from ..core.errors import ToolchainError, Unverified
from ..proofs import Verification
from ..stages import Release

FILE_NAME = "verification.json"


def doubt(release: Release, verification: Verification | None) -> str:
    """Why this verification does not prove this release; empty if it does."""
    if verification is None:
        return "it was never verified"
    if verification.content_sha256 != built.content_digest(release):
        return f"its verification is for other content ({verification.release})"
    return "" if verification.ok else "its verification failed"


def require(
    release: Release, verification: Verification | None, config: DeployConfig, console: Console
) -> Verification | None:
    """The verification if it proves the release; None if it does not and `deploy.allow_unverified` is set.

    Raises `Unverified`.
    """
    why = doubt(release, verification)
    if not why:
        if verification and not verification.gpu and release.platform.startswith("macos") and release.cache_types:
            console.warn(f"{release.id}: verified without a GPU (verify.gpu), so nothing shows that it computes on one")
        return verification
    if not config.allow_unverified:
        types = "" if release.cache_types else f" --set verify.types={config.kv_cache_type}"
        raise Unverified(
            f"{release.id}: {why}",
            hint=f"./inv verify --release {release.id}{types}, or install it anyway with --unverified",
        )
    console.warn(f"{release.id}: {why}; installing it anyway, because deploy.allow_unverified is set")
    return None


def require_still(folder: Path, release: Release, config: DeployConfig, console: Console) -> None:
    """Check that a release that was installed with a verification still has it, before it runs again.

    Raises `Unverified` unless `deploy.allow_unverified` is set.
    """
    if not release.verification or is_proven(folder):
        return
    why = f"{folder / FILE_NAME} is not the verification that the release was installed with"
    if not config.allow_unverified:
        raise Unverified(why, hint=f"install {release.id} again, or set deploy.allow_unverified")
    console.warn(f"{why}; running it anyway, because deploy.allow_unverified is set")


def write(folder: Path, release: Release, verification: Verification | None) -> None:
    """Write the manifest of an installed release, and its verification beside it, which the manifest names.

    The files get the modes that it states.

    If killed in between, the release is installed but unproven.
    """
    modes.set_all(folder, release.executable or ())
    digest = ""
    if verification is not None:
        data = records.to_json(verification).encode()
        digest = records.sha256_bytes(data)
        records.write_bytes(folder / FILE_NAME, data)
    records.write(folder / built.MANIFEST, replace(release, verification=digest))


def is_proven(folder: Path) -> bool:
    """Whether an installed release has the verification that its manifest names, and this proves it."""
    try:
        release = built.load(folder)
        if not release.verification or records.sha256_file(folder / FILE_NAME) != release.verification:
            return False
        return not doubt(release, records.read(folder / FILE_NAME, Verification))
    except (ToolchainError, OSError):
        return False
