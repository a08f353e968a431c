"""Variables of a process: which names and values a file of KEY=VALUE lines can hold, and which of them are secrets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from .errors import ConfigError
from .records import sha256_bytes

MAX_VALUE = 16384
"""bytes; Linux takes 128 KiB for one variable, macOS 256 KiB for all of them"""
MAX_COUNT = 100
MARK = "TURBOQUANT_RELEASE"
"""variable that the shim sets to the release directory"""
SERVE = "TURBOQUANT_SERVE"
"""variable of a release's environment that says which of its programs is the service; not set: Ollama"""
CALIBRATION = "LLAMA_KV_CALIBRATION"
"""for llama-server: the folder of the files that say how a model's keys are stored"""
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_LOADER = ("DYLD_", "LD_")
_SHELL = re.compile(
    r"CDPATH|COLUMNS|DIRSTACK|ENV|EPOCH\w+|EUID|FUNCNAME|GLOBIGNORE|GROUPS|HISTCMD|HOSTNAME|HOSTTYPE|IFS|LINENO|LINES"
    r"|MACHTYPE|OLDPWD|OPT(?:ARG|ERR|IND)|OSTYPE|PIPESTATUS|POSIXLY_CORRECT|PPID|PS[1-4]|PWD|RANDOM|REPLY|SECONDS"
    r"|SHELL|SHELLOPTS|SHLVL|SRANDOM|TMOUT|UID|BASH\w*"
)
"""what the shell that starts the service reads, sets, or does not let anyone set"""
_SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)(?:_|$)|KEY$", re.IGNORECASE)
_MASK = "(secret,"
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def check(given: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a name or value that no service gets, whatever program it runs."""
    if len(given) > MAX_COUNT:
        raise ConfigError(f"{len(given)} variables, more than {MAX_COUNT}")
    for name, value in given.items():
        if why := _name_refused(name):
            raise ConfigError(f"the variable {name[:140]!r} {why}")
        if why := value_refused(value):
            raise ConfigError(f"{name}: {masked(name, value)[:140]!r} {why}")


def value_refused(value: str) -> str:
    """Why a line cannot hold this value; empty if it can. Some programs end a line at U+2028 and U+2029, too."""
    kinds = set(map(unicodedata.category, value))
    if kinds & {"Cc", "Zl", "Zp"}:
        return "contains a control character or the end of a line"
    if "Cs" in kinds:
        return "is not UTF-8"
    size = len(value.encode())
    return f"has {size} bytes, more than {MAX_VALUE}" if size > MAX_VALUE else ""


def _name_refused(name: str) -> str:
    if not _NAME.fullmatch(name):
        return "needs a name of capital letters, digits and underscores, such as OLLAMA_KEEP_ALIVE"
    if name.startswith(_LOADER):
        return "makes the loader run other code than that of the release"
    if name == MARK:
        return "is set by the shim, to know the release's processes by it"
    if name == SERVE:
        return "says which program is the service: set deploy.serve"
    if name in ("HOME", "PATH"):
        return "is set by the service manager"
    if _SHELL.fullmatch(name):
        return "belongs to the shell that starts the service"
    return ""


def masked(name: str, value: str) -> str:
    """The value as it may be shown: a secret, or the user in a URL, by the first digits of its digest only."""
    if _SECRET.search(name):
        return _digest(value) if value else ""
    return _USERINFO.sub(lambda match: _digest(match[0]), value)


def all_masked(given: Mapping[str, str]) -> dict[str, str]:
    """Each value as it may be shown."""
    return {name: masked(name, value) for name, value in given.items()}


def is_masked(value: str) -> bool:
    """Whether a value is what `masked` shows of a secret."""
    return value.startswith(_MASK)


def _digest(secret: str) -> str:
    return f"{_MASK} sha256 {sha256_bytes(secret.encode('utf-8', 'surrogatepass'))[:8]})"
