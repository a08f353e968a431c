"""How a validation ends, each with its own exit code."""

from __future__ import annotations

from .errors import ToolchainError


class TryAnotherSetting(ToolchainError):
    """The build is sound, but this cache type misses a threshold with this model: try another setting."""

    exit_code = 80


class FixFirst(ToolchainError):
    """The build does not do what the cache type promises: trust no measurement before it is fixed."""

    exit_code = 81


class SettingKilled(ToolchainError):
    """This cache type is no setting for this model: a figure is beyond the limit that ends it."""

    exit_code = 82


class Undecided(ToolchainError):
    """The validation lacks a test or a human's verdict that the decision needs."""

    exit_code = 83


class RunVoid(ToolchainError):
    """Something disturbed the validation, so that its figures prove nothing."""

    exit_code = 84


class RunsDiffer(ToolchainError):
    """Two validations of different models or prompts cannot be compared."""

    exit_code = 85


class WrongModelServed(ToolchainError):
    """An endpoint answers, but serves another model than the one to validate."""

    exit_code = 86


class NothingFits(ToolchainError):
    """No setting of the cache types to choose from fits into the memory at this context."""

    exit_code = 89
