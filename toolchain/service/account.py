"""The account that a service runs as, and the rights that root gives up while it works for another user.

uid, home and name of the account decide domain, prefix and folder of the definition. They come from the user database,
never from HOME: sudo and MDM leave another user's there, or none.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import platformdirs

from ..core.config import DeployConfig
from ..core.errors import ConfigError
from ..core.records import record

SYSTEM = "system"
"""the domain of services that belong to the machine, launchd's daemons among them"""
_NAME = "turboquant"
_CONSOLE = Path("/dev/console")
_MOST_GROUPS = 16
"""macOS takes no more in setgroups, though its getgroups may return more"""


@record
class Account:
    """A user of this machine, from its password database."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def is_caller(self) -> bool:
        """Whether it started this process."""
        return self.uid == os.getuid()


@record
class Machine:
    """What a service manager knows about the caller and the screen."""

    root: bool = False
    """whether the caller acts in every domain"""
    console_user: str = ""
    """who is logged in at the screen; empty: nobody (the login window, or no screen at all)"""
    system_prefix: Path | None = None
    """default prefix of a system daemon; None: the same as an agent's"""


ORDINARY = Machine()
"""as an ordinary user sees it"""


def named(name: str) -> Account:
    """The account of that name. Raises `ConfigError`."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"deploy.user: there is no user {name!r}", hint="`id NAME` tells whether it exists") from None
    return _account(found)


def of_uid(uid: int, setting: str = "deploy.user") -> Account:
    """The account with that uid. Raises `ConfigError` when the user database does not know it."""
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        raise ConfigError(f"{setting}: uid {uid} is in no user database", hint="set deploy.user") from None


def name_of(uid: int) -> str:
    """The name of a user, or `uid N` when the user database does not know it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def caller() -> Account:
    """The account of this process. Raises `ConfigError` when the user database does not know it."""
    return of_uid(os.getuid())


def is_writable(folder: Path) -> bool:
    """Whether this process may make files in a folder, with the rights that it has now."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def is_root() -> bool:
    """Whether this process was started by root, which it still is while it acts as another user."""
    return 0 in (os.getuid(), os.geteuid())


def console_user(console: Path = _CONSOLE) -> str:
    """The user who is logged in at the screen of this Mac: the owner of /dev/console. Empty when there is none."""
    try:
        found = pwd.getpwuid(console.stat().st_uid)
    except (OSError, KeyError):
        return ""
    # root: the login window; _mbsetupuser: the Setup Assistant of a new Mac
    return "" if found.pw_uid == 0 or found.pw_name.startswith("_") else found.pw_name


def this_mac() -> Machine:
    """The real thing."""
    user = console_user() if is_root() and sys.platform == "darwin" else ""
    return Machine(root=is_root(), console_user=user, system_prefix=Path("/Library/Application Support") / _NAME)


def domain(config: DeployConfig, machine: Machine) -> str:
    """deploy.domain, with the uid of the service's user for one that says `user`. Raises `ConfigError`."""
    if config.domain != "user":
        return config.domain
    return f"user/{known(find(config, 'user', machine)).uid}"


def find(config: DeployConfig, domain: str, machine: Machine, installed: str = "") -> Account | None:
    """The account of the service in `domain` (or auto); None when root would have to guess it.

    gui/UID and user/UID belong to that user. A daemon runs as deploy.user, else as the user of its `installed`
    definition, else as the one who called sudo, else as the one at the screen; as root only if deploy.user says so.
    Whoever is not root has only its own services. Raises `ConfigError`.
    """
    uid = domain.partition("/")[2]
    if uid and machine.root:
        owner = of_uid(int(uid), "deploy.domain")
        if owner.uid == 0 and not config.user:
            raise ConfigError(f"deploy.domain: {domain} would run the service as root", hint="say so: deploy.user=root")
        if config.user not in ("", owner.name):
            raise ConfigError(
                f"deploy.user: {config.user} is not the user of deploy.domain {domain}, which is {owner.name}",
                hint="set one of the two, or deploy.domain=system",
            )
        return owner
    if config.user:
        return named(config.user)
    if not machine.root:
        return caller()
    called = os.environ.get("SUDO_USER", "")
    names = (installed if _exists(installed) else "", called if called != "root" else "", machine.console_user)
    return next((named(name) for name in names if name), None)


def known(found: Account | None) -> Account:
    """The account that `find` found. Raises `ConfigError` for a daemon of root for which it finds nobody."""
    if found is not None:
        return found
    nobody = ", and nobody is logged in at the screen (it shows the login window, or there is none)"
    raise ConfigError(
        "deploy.user: as which user shall the service run? It is not set, sudo was not used"
        + (nobody if sys.platform == "darwin" else ""),
        hint="--set deploy.user=NAME, the user whose models it serves",
    )


def expand(path: str, config: DeployConfig, machine: Machine) -> Path:
    """The absolute path of a setting, in which ~ is the home of the service's user. Raises `ConfigError`."""
    first, separator, rest = path.partition("/")
    if first != "~" or not (machine.root or config.user):
        return with_home(path).absolute()
    owner = known(find(config, config.domain, machine))
    return owner.home / rest if separator else owner.home


def with_home(path: str) -> Path:
    """The path with the home for its ~ or ~NAME. Raises `ConfigError` when that is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = path.partition("/")[0]
        raise ConfigError(f"{path}: the home folder {home} is unknown", hint="name the folder without ~") from error


def prefixes(config: DeployConfig, machine: Machine) -> tuple[Path, ...]:
    """Where the installation is: deploy.prefix, or else the default places, the one for a new installation first.

    Raises `ConfigError`.
    """
    if config.prefix:
        return (expand(config.prefix, config, machine),)
    system = machine.system_prefix
    if system and config.domain == SYSTEM:
        return (system,)
    owner = find(config, config.domain, machine)
    if not system or config.domain != "auto":
        return (_own_prefix(known(owner), machine),)
    own = () if owner is None else (_own_prefix(owner, machine),)
    return (system, *own) if machine.root else (*own, system)


def _own_prefix(owner: Account, machine: Machine) -> Path:
    if owner.is_caller and not machine.root:
        return Path(platformdirs.user_data_dir(_NAME)).absolute()
    return owner.home / ("Library/Application Support" if sys.platform == "darwin" else ".local/share") / _NAME


def _exists(name: str) -> bool:
    try:
        return bool(name and pwd.getpwnam(name))
    except KeyError:
        return False


def _account(found: pwd.struct_passwd) -> Account:
    return Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, home=Path(found.pw_dir))


@contextmanager
def acting(user: Account) -> Iterator[None]:
    """As root, have only the rights of `user` meanwhile, so that no link of theirs leads root elsewhere.

    Files that are made belong to them. Does nothing for others than root.
    """
    if os.geteuid() != 0 or user.uid == 0:
        yield
        return
    temporary = tempfile.tempdir
    with _identity(user.uid, user.gid, os.getgrouplist(user.name, user.gid)):
        tempfile.tempdir = None  # root's may be closed to them
        try:
            yield
        finally:
            tempfile.tempdir = temporary


@contextmanager
def acting_in(folder: Path) -> Iterator[None]:
    """As root, have the rights of whoever owns a folder, or what is above it while it does not exist."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with acting(of_uid(there.stat().st_uid, str(there)) if is_root() else caller()):
        yield


def keeper(folder: Path) -> Account | None:
    """The user other than root who can replace a folder or one above it; None when there is none.

    Of several the topmost, and none of whom the user database does not know.
    """
    real = Path(os.path.realpath(folder))
    for path in (*reversed(folder.parents), folder, *reversed(real.parents), real):
        with suppress(OSError, ConfigError):
            if path.lstat().st_uid != 0:
                return of_uid(path.lstat().st_uid)
    return None


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """As root, also inside of `acting`, have the rights of the folder's keeper; root's where only root can replace it.

    So the keeper, with a link for the folder, gets no more of root than they could do themselves.
    """
    with as_root():
        user = keeper(folder) if os.geteuid() == 0 else None
        with acting(user) if user else nullcontext():
            yield


def refuse_to_litter(workspace: Path) -> None:
    """Raises `ConfigError` when sudo would leave files of root's in the workspace of a user."""
    if not (is_root() and (os.environ.get("SUDO_USER") or sys.platform == "darwin")):
        return
    there = next(path for path in (workspace, *workspace.parents) if path.exists())
    if there.stat().st_uid != 0:
        raise ConfigError(
            f"workspace: {there} belongs to {name_of(there.stat().st_uid)}, who could not change what root makes in it",
            hint="run this without sudo, which only deploy.* needs, or set workspace to a folder of root's",
        )


@contextmanager
def as_root() -> Iterator[None]:
    """Inside of `acting`, be root again for a moment, as a service manager requires."""
    if os.getuid() != 0 or os.geteuid() == 0:
        yield
        return
    with _identity(0, os.getgid(), []):
        yield


@contextmanager
def _identity(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """Have these effective ids meanwhile, of which one is root's: the present one or the new one."""
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        _become(uid, gid, groups)
        yield
    finally:
        _become(*before)


def _become(uid: int, gid: int, groups: list[int]) -> None:
    os.seteuid(0)
    try:
        os.setgroups(groups[:_MOST_GROUPS])
        os.setegid(gid)
    finally:
        os.seteuid(uid)
