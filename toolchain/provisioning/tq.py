"""tq, the provisioner for Macs: one shell script, rendered from templates/tq.sh.j2.

It holds the shim and the property list as deploy's own code makes them, with place-holders, so that an installation by
one is that of the other. The same toolkit always renders the same bytes.
"""

from __future__ import annotations

import plistlib
from pathlib import Path

from ..core import templates, variables
from ..core.cachetypes.table import UPSTREAM
from ..core.config import DeployConfig
from ..deploy import shim
from ..deploy.prefix import Prefix
from ..service import propertylist
from ..service.account import Account
from ..service.launchd import LaunchdManager
from ..service.manager import Definition
from ..service.units.ollama import OllamaUnit

_TEMPLATE = "tq.sh.j2"
_PREFIX = Path("/@TQ_PREFIX@")
_LOG_MB, _LOG_FILES = 864_213, 97_531
"""stand for the settings: numbers that occur nowhere else in the shim"""
_USER = "@TQ_USER@"
RESERVED = (
    *OllamaUnit.variables.settings,
    *(variables.MARK, variables.SERVE, "HOME", "PATH", "CDPATH", "COLUMNS", "DIRSTACK", "ENV", "EPOCHREALTIME"),
    *("EPOCHSECONDS", "EUID", "FUNCNAME", "GLOBIGNORE", "GROUPS", "HISTCMD", "HOSTNAME", "HOSTTYPE", "IFS", "LINENO"),
    *("LINES", "MACHTYPE", "OLDPWD", "OPTARG", "OPTERR", "OPTIND", "OSTYPE", "PIPESTATUS", "POSIXLY_CORRECT", "PPID"),
    *("PS1", "PS2", "PS3", "PS4", "PWD", "RANDOM", "REPLY", "SECONDS", "SHELL", "SHELLOPTS", "SHLVL", "SRANDOM"),
    *("TMOUT", "UID"),
)
"""variables that no desired state may set, besides BASH*, LD_* and DYLD_*"""


def render() -> bytes:
    """The script."""
    text = templates.render(
        _TEMPLATE,
        defaults=DeployConfig(),
        upstream_types=" ".join(f"{kind.name}:{kind.block}:{kind.bytes}" for kind in UPSTREAM),
        reserved=" ".join(RESERVED),
        shim=_shim(),
        plist=_property_list(),
        wired=_wired_limit(),
    )
    return text.encode()


def _shim() -> str:
    """The shim, with @TQ_PREFIX@, @TQ_LOG@, @TQ_BYTES@ and @TQ_FILES@."""
    prefix = Prefix(_PREFIX)
    manager = LaunchdManager(
        command=(), environment={}, domain="system", label="", plist=Path("/"), account=None, owner=_nobody()
    )
    text = shim.render(prefix, manager, DeployConfig(log_mb=_LOG_MB, log_files=_LOG_FILES)).decode()
    tokens = {
        str(prefix.log): "@TQ_LOG@",
        str(_PREFIX): "@TQ_PREFIX@",
        f"{_LOG_MB * 1_000_000}": "@TQ_BYTES@",
        str(_LOG_FILES): "@TQ_FILES@",
    }
    return _replaced(text, tokens)


def _property_list() -> str:
    """The service's property list, with @TQ_LABEL@, @TQ_PROGRAM@, @TQ_HOME@, @TQ_LOGFILE@ and a line of @TQ_USER@."""
    definition = Definition(program=Path("@TQ_PROGRAM@"), log=Path("@TQ_LOGFILE@"))
    data = propertylist.property_list(definition, label="@TQ_LABEL@", home=Path("@TQ_HOME@"), user=_USER)
    return _replaced(data.decode(), {f"\t<key>UserName</key>\n\t<string>{_USER}</string>": _USER})


def _wired_limit() -> str:
    """The property list of the job that sets the limit of the GPU's memory at each boot."""
    job = {
        "Label": "@TQ_LABEL@.wired-limit",
        "ProgramArguments": ["/usr/sbin/sysctl", "iogpu.wired_limit_mb=@TQ_MB@"],
        "RunAtLoad": True,
    }
    return plistlib.dumps(job, sort_keys=False).decode()


def _replaced(text: str, tokens: dict[str, str]) -> str:
    for found, token in tokens.items():
        assert found in text, f"{found} is nowhere in what deploy renders"
        text = text.replace(found, token)
    return text


def _nobody() -> Account:
    return Account(name="", uid=0, gid=0, home=Path("/"))
