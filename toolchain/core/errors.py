"""Every expected failure, each with its own exit code.

A `ToolchainError` is for the person at the terminal: what is wrong, with which thing, and what to try.
Any other exception is a bug and keeps its traceback. The table in docs/reference/exit-codes.md is made from
this module and delivery_errors.py by exit_codes.py, and a test checks that the codes are distinct.
"""

from __future__ import annotations

from typing import ClassVar


class ToolchainError(Exception):
    """Base of all expected failures.

    `message` names the thing and why; `hint` says what to try. The class docstring's first line is the
    entry in the exit-code table. Codes 1 (a bug) and 2 (Invoke's usage error) are not used here.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


def reason(error: BaseException) -> str:
    """What went wrong, in words: for a file that cannot be read, without the number and the name that `str` adds."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


class ConfigError(ToolchainError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 3


class CommandFailed(ToolchainError):
    """A program that a stage depends on failed, outside a build step."""

    exit_code = 4


class DiskFull(ToolchainError):
    """The disk is full, or has less room than the stage needs."""

    exit_code = 5


class LockHeld(ToolchainError):
    """Another run holds the lock on this workspace or prefix."""

    exit_code = 6


class MissingTool(ToolchainError):
    """A compiler or another build tool is missing or too old."""

    exit_code = 7


class RecordError(ToolchainError):
    """A JSON record of an earlier stage cannot be read or does not fit its schema."""

    exit_code = 8


class MissingExtra(ToolchainError):
    """A package that only this task needs is not installed."""

    exit_code = 9


# -- sources ---------------------------------------------------------------------------------------


class NotARepository(ToolchainError):
    """A path that should be a git repository is not one."""

    exit_code = 10


class UnknownLayout(ToolchainError):
    """The tree has no known layout of Ollama."""

    exit_code = 11


class PinMissing(ToolchainError):
    """The llama.cpp that Ollama pins is not in the mirror."""

    exit_code = 12


class FetchFailed(ToolchainError):
    """A mirror could not be cloned or updated, or a file could not be downloaded."""

    exit_code = 13


class DirtyScratch(ToolchainError):
    """The scratch tree holds changes that the series did not make."""

    exit_code = 14


class UnknownRevision(ToolchainError):
    """A branch, tag or commit does not exist in the repository."""

    exit_code = 15


class EraNotServed(ToolchainError):
    """The tree belongs to an era of Ollama that the series does not support."""

    exit_code = 16


class HeaderInvalid(ToolchainError):
    """A public header of llama.cpp is missing or does not parse."""

    exit_code = 17


class Unrelated(ToolchainError):
    """The fork shares no history with llama.cpp."""

    exit_code = 18


class NoReleaseHolds(ToolchainError):
    """The series applies to none of Ollama's stable releases."""

    exit_code = 19


# -- series ----------------------------------------------------------------------------------------


class SeriesError(ToolchainError):
    """A file of the series is malformed."""

    exit_code = 20


class AnchorAmbiguous(ToolchainError):
    """An anchor matches more often than its edit says."""

    exit_code = 21


class AnchorMissing(ToolchainError):
    """An anchor, its scope or its file was not found."""

    exit_code = 22


class ChecksumMismatch(ToolchainError):
    """A file does not have the checksum that its manifest states."""

    exit_code = 23


class SeriesDoesNotApply(ToolchainError):
    """`series.check` found at least one edit that does not apply."""

    exit_code = 24


class PatchFailed(ToolchainError):
    """A plain patch of the series does not apply."""

    exit_code = 25


class ContractBroken(SeriesDoesNotApply):
    """llama.cpp lacks a symbol that the series' sources use, or declares it differently."""

    exit_code = 26


class BehaviourChanged(SeriesDoesNotApply):
    """llama.cpp's host code handles a cache of our types differently than the series requires."""

    exit_code = 27


# -- a Mac -----------------------------------------------------------------------------------------


class GpuUnavailable(ToolchainError):
    """This process gets no Metal device, as in a daemon or an SSH session."""

    exit_code = 28


class Translated(ToolchainError):
    """The process runs under Rosetta, so it would build for and find another machine."""

    exit_code = 29


# -- build -----------------------------------------------------------------------------------------


class BuildFailed(ToolchainError):
    """A build step failed; its command and the tail of its log are shown."""

    exit_code = 30


class ReleaseInvalid(ToolchainError):
    """A release directory is incomplete, or its files differ from its manifest."""

    exit_code = 31


# -- verify ----------------------------------------------------------------------------------------


class PortInUse(ToolchainError):
    """The port is taken by another program."""

    exit_code = 40


class ServerFailed(ToolchainError):
    """The server under test did not start or died."""

    exit_code = 41


class ModelLoadFailed(ToolchainError):
    """The server could not load the model."""

    exit_code = 42


class VerificationFailed(ToolchainError):
    """The build runs but does not do what was configured."""

    exit_code = 43


class FolderUnusable(ToolchainError):
    """The workspace, the prefix or the home folder is missing, unwritable or no folder."""

    exit_code = 46


class ModelNotServable(ToolchainError):
    """llama-server cannot serve a model as Ollama does: it has no chat template, or is no model to chat with."""

    exit_code = 48


# -- deploy ----------------------------------------------------------------------------------------


class PrefixUnsafe(ToolchainError):
    """The prefix belongs to another user, others could change it, or the service's user cannot reach it."""

    exit_code = 44


class ModelsUnavailable(ToolchainError):
    """The models folder is on a volume that is not mounted, or is closed to the service's account."""

    exit_code = 45


class ManagerRefused(ToolchainError):
    """The service manager refused the service."""

    exit_code = 50

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        """`code` is the manager's own; 0 when it gave none."""
        super().__init__(message, hint=hint)
        self.code = code


class RolledBack(ToolchainError):
    """The new release was unhealthy; the one before it is active again."""

    exit_code = 51


class Unhealthy(ToolchainError):
    """The service is unhealthy or not installed, or there was no healthy release to go back to."""

    exit_code = 52


class NothingToRollBackTo(ToolchainError):
    """There is no earlier release."""

    exit_code = 53


class ServiceConflict(ToolchainError):
    """Another Ollama would compete for the port, or another service has the label."""

    exit_code = 54


class ManagerUnavailable(ToolchainError):
    """The service manager is unavailable, so the state of the service is unknown."""

    exit_code = 55


class Unverified(ToolchainError):
    """The release was not verified, failed verification, or was changed since."""

    exit_code = 56


class PreflightRefused(ManagerRefused):
    """The service manager would not load the service; nothing was built or changed."""

    exit_code = 57


class PrefixInvalid(ToolchainError):
    """A folder of the prefix leads out of it, or is none, so that a deploy must not write there."""

    exit_code = 58


# -- quality ---------------------------------------------------------------------------------------


class StateInvalid(ToolchainError):
    """A saved slot of llama-server is truncated or has an unknown layout."""

    exit_code = 60


class TextTooShort(ToolchainError):
    """A text has too few tokens to measure anything with."""

    exit_code = 61


class CacheCollapse(ToolchainError):
    """The requested cache type makes this model's answers collapse."""

    exit_code = 62


class CalibrationUnsound(ToolchainError):
    """A model's attention would change if its keys were stored otherwise."""

    exit_code = 59


# -- memory ----------------------------------------------------------------------------------------


class ModelInvalid(ToolchainError):
    """A model file is missing, truncated or malformed, or cannot be fetched."""

    exit_code = 70


class ArchitectureUnknown(ToolchainError):
    """The cache layout of this model's architecture is unknown."""

    exit_code = 71


# -- metal -----------------------------------------------------------------------------------------


class KernelInvalid(ToolchainError):
    """A Metal source does not compile, or a dispatch does not fit its kernel."""

    exit_code = 90


class NotModelled(ToolchainError):
    """A Metal source uses a feature that the harness does not model."""

    exit_code = 91


class MetalLayoutUnknown(ToolchainError):
    """The Metal kernels of a tree have an unknown file layout, or one that differs from the tree's file lists."""

    exit_code = 92
