"""The account that a service runs as: its uid, home and name decide domain, prefix and folder of the definition."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ..core.config import DeployConfig
from ..core.errors import ConfigError
from ..core.records import record


@record
class Account:
    """A user of this machine, from its password database."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def is_caller(self) -> bool:
        """Whether this process runs as it."""
        return self.uid == os.geteuid()


def named(name: str) -> Account:
    """The account of that name. Raises `ConfigError`."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"deploy.user: there is no user {name!r}", hint="`id NAME` tells whether it exists") from None
    return _account(found)


def caller() -> Account:
    """The account of this process; HOME is ignored, since sudo and MDM leave another's or none.

    Raises `ConfigError` when the user database does not know it.
    """
    try:
        return _account(pwd.getpwuid(os.geteuid()))
    except KeyError:
        raise ConfigError(f"uid {os.geteuid()} is in no user database", hint="set deploy.user") from None


def of_service(config: DeployConfig) -> Account:
    """The account that `config` makes the service's: deploy.user, else the caller, who may have called sudo."""
    name = config.user or (os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else "")
    return named(name) if name else caller()


def _account(found: pwd.struct_passwd) -> Account:
    return Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, home=Path(found.pw_dir))
