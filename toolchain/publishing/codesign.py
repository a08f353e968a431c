"""`release.sign`: a new release whose Mach-O files are signed, libraries before programs.

Signing changes bytes, and so the release's id: the signed release is a directory of its own, and has to be verified.
Only Mach-O files are signed, as a signature of any other file is an attribute that tar loses. There are no
entitlements. The hardened runtime is set with a Developer ID alone: it refuses libraries that are signed ad hoc or by
another team. What the tool did is then read from the file itself (codesignature).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..build import assemble, check, macho, modes, release_dir
from ..core import process, records
from ..core.config import PublishConfig
from ..core.delivery_errors import SigningFailed
from ..core.errors import MissingTool
from ..core.records import record
from ..core.run import Run
from ..deploy import store
from ..stages import Release
from . import codesignature
from .codesignature import Signing
from .published import Digest

RECORD = "signing.json"
_IDENTIFIER = "io.turboquant."
"""before a file's name: the same identifier in each release"""
_COPIED = ("sources.json", "rendered.json", "scratch.json")
"""records of the unsigned release that are true of the signed one"""
_TIMEOUT_S = 300.0
"""for one file: a time-stamp server may be slow"""
_LINES = 3
"""of a tool's output in a message: rcodesign says why before it says that it failed"""
_HINTS = {
    "errSecInternalComponent": "the keychain is locked, or codesign may not use the key: security unlock-keychain, "
    "then security set-key-partition-list -S apple-tool:,apple:",
    "no identity found": "security find-identity -v -p codesigning lists the identities; set publish.identity",
    "ambiguous": "set publish.identity to the certificate's SHA-1: security find-identity -v -p codesigning",
    "timestamp service is not available": "Apple's time-stamp server could not be reached: try again",
    "incorrect password": "set publish.certificate_password_file to a file with the certificate's password",
}


@record
class SignedFile:
    """A file's digest as it was built, and as it was signed."""

    name: str
    built: Digest
    signed: Digest


@record
class Signed:
    """A release whose Mach-O files are signed, and the one that it was made of."""

    release: str
    of: str
    signing: Signing
    tool: str
    """codesign, rcodesign, or "outside" for what others signed; empty where there was nothing to sign"""
    files: tuple[str, ...]
    """the Mach-O files in the order in which they were signed"""
    unsigned: dict[str, Digest]
    """of each of them, without its signature"""
    digests: tuple[SignedFile, ...] = ()
    """of each of them, before and after; empty in a record of an earlier version"""


def sign(run: Run, folder: Path) -> Signed:
    """Make a signed release of a release directory, which stays as it is.

    A release without Mach-O files has nothing to sign, and stays the release. Raises `ReleaseInvalid`,
    `SigningFailed`, `MissingTool`, `DiskFull`, `LockHeld`.
    """
    release = replace(check(folder), verification="")
    config = run.config.publish
    found = macho.files(folder, release)
    if not found:
        run.console.note(f"{release.id}: nothing to sign: it has no Mach-O file ({release.platform})")
        return Signed(release=release.id, of=release.id, signing="none", tool="", files=(), unsigned={})
    tool = _tool(config)
    unsigned = {name: macho.unsigned_digest(path) for name, path in found.items()}

    def fill(target: Path) -> None:
        for name in release.files:
            store.copy_file(folder / name, target / name)
        modes.set_all(target, release.executable or ())
        with run.console.step(f"sign {len(found)} files ({config.signing})") as step:
            for index, name in enumerate(found):
                step.update(index, len(found), name)
                _sign(target / name, tool, config)
                _check(target / name, name, unsigned[name], config)

    draft = replace(release, id="", files={}, executable=None, flags={**release.flags, "signing": config.signing})
    signed = assemble(run.workspace, draft, fill)
    result = Signed(
        release=signed.id,
        of=release.id,
        signing=config.signing,
        tool=tool.name,
        files=tuple(found),
        unsigned=unsigned,
        digests=digests(release, signed, found),
    )
    keep(run, release, signed, result)
    run.console.note(f"release: {release_dir(run.workspace, signed)}; verify it: ./inv verify --release {signed.id}")
    return result


def digests(built: Release, signed: Release, names: Iterable[str]) -> tuple[SignedFile, ...]:
    """Both digests of these files."""
    return tuple(SignedFile(name=name, built=built.files[name], signed=signed.files[name]) for name in names)


def keep(run: Run, before: Release, signed: Release, result: Signed) -> None:
    """Write the records of a signed release, with those of the one before that are true of it."""
    source, target = run.records_of(before.id), run.records_of(signed.id)
    if before.id != signed.id:
        for name in _COPIED:
            if (source / name).is_file():
                records.write_bytes(target / name, (source / name).read_bytes())
    records.write(target / "release.json", signed)
    records.write(target / RECORD, result)


def _tool(config: PublishConfig) -> Path:
    """The signing program. Raises `MissingTool`, `SigningFailed` for a certificate that the settings lack."""
    name = config.signing_tool
    if name == "auto":
        native = sys.platform == "darwin" and not config.certificate
        name = "codesign" if native else "rcodesign"
    needed, value = ("identity", config.identity) if name == "codesign" else ("certificate", config.certificate)
    if config.signing != "adhoc" and not value:
        raise SigningFailed(
            f"publish.signing={config.signing}: no certificate to sign with",
            hint=f"set publish.{needed}, which {name} needs",
        )
    if value and name == "rcodesign" and not Path(value).expanduser().is_file():
        raise SigningFailed(f"publish.certificate: {value}: there is no such file", hint="a .p12, or a PEM file")
    if not (found := shutil.which(name)):
        hint = "xcode-select --install" if name == "codesign" else "cargo install apple-codesign, which makes rcodesign"
        raise MissingTool(f"{name} was not found, so that nothing can be signed", hint=hint)
    return Path(found)


def _sign(path: Path, tool: Path, config: PublishConfig) -> None:
    for words in commands(path, tool, config):
        done = process.run(words, check=False, timeout=_TIMEOUT_S, failure=SigningFailed, what=tool.name)
        if done.returncode != 0:
            hint = next((hint for said, hint in _HINTS.items() if said in done.output), "")
            said = "; ".join(done.output.strip().splitlines()[-_LINES:]) or "it printed nothing"
            raise SigningFailed(f"{path.name}: {tool.name} ended with {done.returncode}: {said}", hint=hint)


def commands(path: Path, tool: Path, config: PublishConfig) -> list[list[str]]:
    """The commands that sign one file in place, and have the tool check it."""
    identifier = f"{_IDENTIFIER}{path.name}"
    if tool.name == "codesign":
        how = {
            "adhoc": ["--sign", "-", "--timestamp=none"],
            "self-signed": ["--sign", config.identity, "--timestamp=none"],
            "developer-id": ["--sign", config.identity, "--options", "runtime", "--timestamp"],
        }[config.signing]
        return [
            [str(tool), "--force", *how, "--identifier", identifier, str(path)],
            [str(tool), "--verify", "--strict", str(path)],
        ]
    how = {
        "adhoc": [],
        "self-signed": ["--timestamp-url", "none"],
        "developer-id": ["--for-notarization"],
    }[config.signing]
    return [[str(tool), "sign", "--binary-identifier", identifier, *how, *_certificate(config), str(path)]]


def _certificate(config: PublishConfig) -> list[str]:
    if config.signing == "adhoc":
        return []
    path = Path(config.certificate).expanduser()
    if path.suffix not in (".p12", ".pfx"):
        return ["--pem-file", str(path)]
    password = config.certificate_password_file
    return ["--p12-file", str(path), *(["--p12-password-file", str(Path(password).expanduser())] if password else [])]


def _check(path: Path, name: str, unsigned: str, config: PublishConfig) -> None:
    """Raise `SigningFailed` unless the file has the signature that was asked for, and is otherwise what it was."""
    wanted = codesignature.Signature(
        signing=config.signing,
        identifier=f"{_IDENTIFIER}{path.name}",
        hardened=config.signing == "developer-id",
        timestamped=config.signing == "developer-id",
    )
    for image in macho.images(path):
        found = codesignature.read(image)
        if found.problem:
            raise SigningFailed(f"{name}: after signing, {found.problem}", hint="use another publish.signing_tool")
        for what, meant in vars(wanted).items():
            if what != "team" and (is_now := getattr(found, what)) != meant:
                raise SigningFailed(
                    f"{name}: its signature has {what} {is_now!r} instead of {meant!r}",
                    hint="sign the release that was built, without a configuration file of the signing tool",
                )
    if macho.unsigned_digest(path) != unsigned:
        raise SigningFailed(f"{name}: signing changed more than the signature", hint="use another publish.signing_tool")
