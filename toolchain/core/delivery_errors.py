"""Failures of delivering a release: to sign it, to publish and verify it, to roll it out.

"Cannot verify" and "tampered" are different errors: the first says that nothing is known, the second that something is.
"""

from __future__ import annotations

from .errors import ToolchainError


class SigningFailed(ToolchainError):
    """A file could not be signed, or its signature does not pass the signing tool's own check."""

    exit_code = 32


class NotarizationFailed(ToolchainError):
    """Apple's notary refused the release, did not answer in time, or cannot be asked here."""

    exit_code = 33


class AlreadyPublished(ToolchainError):
    """The release, the tag or the sequence was published before, with other content."""

    exit_code = 34


class NotPromotable(ToolchainError):
    """A release lacks the signed proof that its channel asks for."""

    exit_code = 35


class ForgeRefused(ToolchainError):
    """The forge refused the request: the token, a permission, or the content."""

    exit_code = 36


class ForgeUnavailable(ToolchainError):
    """The forge or the channel could not be reached, or kept failing."""

    exit_code = 37


class ChecksFailed(ToolchainError):
    """`check` found a file that does not parse, a secret, or a faulty workflow."""

    exit_code = 38


class DocumentInvalid(ToolchainError):
    """A bill of materials or a statement does not fit its schema, or another release."""

    exit_code = 39


class DriftFound(ToolchainError):
    """A Mac, a published folder, or a rebuild differs from what it should be."""

    exit_code = 47


class ProfileInvalid(ToolchainError):
    """A client's profile cannot be made from these settings, or the client does not load it."""

    exit_code = 49


class CannotVerify(ToolchainError):
    """A signature or its tool is missing, so that nothing is known about the content."""

    exit_code = 63


class Tampered(ToolchainError):
    """A file is not what was signed."""

    exit_code = 64


class UnknownKey(ToolchainError):
    """The signature is of a key that is not trusted."""

    exit_code = 65


class KeyRevoked(ToolchainError):
    """The signature is of a key that was revoked, or that was not valid yet or any more."""

    exit_code = 67


class WrongNamespace(ToolchainError):
    """The signature was made for another purpose."""

    exit_code = 68


class ChannelExpired(ToolchainError):
    """The channel's statement has expired, so that a newer one may be withheld."""

    exit_code = 69


class OlderSequence(ToolchainError):
    """The channel or the release is older than what was seen before, or than the channel's minimum."""

    exit_code = 72


class ReleaseRevoked(ToolchainError):
    """The channel revokes this release."""

    exit_code = 73


class ArchiveUnsafe(ToolchainError):
    """An archive has a member that is not in its manifest, or that leads out of its folder."""

    exit_code = 74


class ClockWrong(ToolchainError):
    """This machine's clock is too far off to judge whether anything has expired."""

    exit_code = 75


class HostKeyRejected(ToolchainError):
    """A host answers with another key than the inventory states."""

    exit_code = 76


class HostUnreachable(ToolchainError):
    """No host of a wave could be reached."""

    exit_code = 77


class RolloutHalted(ToolchainError):
    """A rollout was halted by its rules; the report says where."""

    exit_code = 78


class InventoryInvalid(ToolchainError):
    """The inventory of a fleet, or the journal of its rollout, is malformed."""

    exit_code = 79
