"""The inventory of a fleet: hosts in waves, and the rules of a rollout, out of one YAML file.

Every error names the file, the line and the key. What a host does not state, `defaults` states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import UNSET, Meta, UnsetType

from ..core.delivery_errors import InventoryInvalid
from ..core.documents import read_yaml
from ..core.errors import ConfigError
from ..core.records import record
from ..provisioning import desired
from .rules import Bound, Duration, Health, Rules, seconds

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
Address = Annotated[
    str, Meta(pattern=r"^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,252}|[0-9A-Fa-f:.]*(?:%[0-9A-Za-z]+)?)\Z|^::1\Z")
]
"""a name, or an address of either family"""
Account = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}\Z")]
Fingerprint = Annotated[str, Meta(pattern=r"^SHA256:[A-Za-z0-9+/]{43}\Z")]
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z", max_length=4096)]
"""text of one line: a line break would begin another key of the desired state"""
Desired = dict[str, str | int | float | bool]
_MANAGED = ("signers", "revoked_keys")
_STEP = re.compile(r"\.(env\.[^.\[\]]+|[^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


class Values(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `defaults` and a host may state."""

    user: Account | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    group: Name | None = None
    wave: Annotated[int, Meta(ge=1, le=999)] | None = None
    sudo: bool | None = None
    key: Line | None = None
    """file with the private key to log in with; without it the agent's keys and those in ~/.ssh"""
    known_hosts: Line | None = None
    folder: Annotated[Line, Meta(min_length=1)] | None = None
    """on the host, for tq and its files: absolute, or below the home folder"""
    desired: Desired = {}


class Entry(Values, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host as it is written."""

    name: Name
    address: Address
    fingerprint: Fingerprint | tuple[Fingerprint, ...] = ()


class RulesEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rollout` as it is written; `Rules` explains the fields, and has what is not stated."""

    canary: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET
    max_parallel: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    min_healthy_time: Duration | UnsetType = UNSET
    healthy_deadline: Duration | UnsetType = UNSET
    progress_deadline: Duration | UnsetType = UNSET
    stagger: Duration | UnsetType = UNSET
    poll: Duration | UnsetType = UNSET
    connect_timeout: Duration | UnsetType = UNSET
    command_timeout: Duration | UnsetType = UNSET
    auto_revert: bool | Literal["wave"] | UnsetType = UNSET
    max_failures: Bound | UnsetType = UNSET
    max_unreachable: Bound | UnsetType = UNSET
    halt_on_same_error: bool | UnsetType = UNSET
    health: tuple[Health, ...] | UnsetType = UNSET
    min_tokens_per_second: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    speed_model: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{0,200}\Z")] | UnsetType = UNSET


class InventoryFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    hosts: Annotated[tuple[Entry, ...], Meta(min_length=1)]
    defaults: Values = Values()
    rollout: RulesEntry = RulesEntry()
    tq: Line = ""
    signers: Line = ""
    revoked_keys: Line = ""


@record
class Host:
    """A host with all that it is reached by. Paths are of this machine, `folder` is the host's."""

    name: str
    address: str
    port: int
    user: str
    group: str
    wave: int
    sudo: bool
    fingerprints: tuple[str, ...]
    """of its host keys; empty: `known_hosts` has them"""
    known_hosts: str
    key: str
    folder: str
    """empty: .turboquant/fleet in the home folder; with sudo where tq looks by default"""
    desired: dict[str, str]


@record
class Inventory:
    """Hosts in the order of their waves, the rules, and the files that every host gets."""

    path: str
    hosts: tuple[Host, ...]
    rules: Rules
    tq: str = ""
    signers: str = ""
    revoked_keys: str = ""

    @property
    def waves(self) -> tuple[int, ...]:
        """Numbers of the waves, in order."""
        return tuple(sorted({host.wave for host in self.hosts}))

    def host(self, name: str) -> Host:
        """The host of that name. Raises `KeyError`."""
        return {host.name: host for host in self.hosts}[name]


def load(path: Path) -> Inventory:
    """Read and check an inventory. Raises `InventoryInvalid`."""
    try:
        data, root = read_yaml(path), yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InventoryInvalid(f"{path}: cannot be read: {why}", hint="name it: --inventory FILE") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InventoryInvalid(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    try:
        parsed = msgspec.convert(data, InventoryFile)
    except msgspec.ValidationError as error:
        what, _, place = str(error).rpartition(" - at `")
        raise _invalid(path, root, place.rstrip("`") or "$", what or str(error)) from error
    return _Reader(path, root, parsed).inventory()


class _Reader:
    """Turns the file's data into hosts, and refuses what no schema can."""

    def __init__(self, path: Path, root: yaml.Node | None, parsed: InventoryFile) -> None:
        self._path, self._root, self._file = path.absolute(), root, parsed

    def inventory(self) -> Inventory:
        """All of it."""
        hosts = tuple(self._host(index, entry) for index, entry in enumerate(self._file.hosts))
        self._no_twins(hosts)
        return Inventory(
            path=str(self._path),
            hosts=tuple(sorted(hosts, key=lambda host: host.wave)),  # within a wave: as they are written
            rules=self._rules(),
            tq=self._local(self._file.tq, "$.tq"),
            signers=self._local(self._file.signers, "$.signers"),
            revoked_keys=self._local(self._file.revoked_keys, "$.revoked_keys"),
        )

    def _host(self, index: int, entry: Entry) -> Host:
        place, defaults = f"$.hosts[{index}]", self._file.defaults
        if entry.address.count(":") == 1:
            raise self._error(f"{place}.address", "the port belongs into `port`")
        prints = (entry.fingerprint,) if isinstance(entry.fingerprint, str) else entry.fingerprint
        known = self._local(_first(entry.known_hosts, defaults.known_hosts, ""), f"{place}.known_hosts")
        if not prints and not known:
            raise self._error(
                place, f"{entry.name} has neither `fingerprint` nor `known_hosts`, so that any machine could pose as it"
            )
        values = self._desired(defaults.desired, "$.defaults") | self._desired(entry.desired, place)
        if not values.get("channel_url"):
            raise self._error(place, f"{entry.name} has no `channel_url` in `desired`, the base URL of the publication")
        return Host(
            name=entry.name,
            address=entry.address,
            port=_first(entry.port, defaults.port, 22),
            user=self._user(entry, place),
            group=_first(entry.group, defaults.group, ""),
            wave=_first(entry.wave, defaults.wave, 1),
            sudo=_first(entry.sudo, defaults.sudo, False),
            fingerprints=prints,
            known_hosts="" if prints else known,
            key=self._local(_first(entry.key, defaults.key, ""), f"{place}.key"),
            folder=_first(entry.folder, defaults.folder, ""),
            desired=values,
        )

    def _user(self, entry: Entry, place: str) -> str:
        if not (user := _first(entry.user, self._file.defaults.user, "")):
            raise self._error(place, f"{entry.name} has no `user`, and neither have the defaults")
        return str(user)

    def _desired(self, written: Desired, place: str) -> dict[str, str]:
        found = {key: _text(value) for key, value in written.items()}
        for key, value in found.items():
            where = f"{place}.desired.{key}"
            if key in _MANAGED:
                raise self._error(where, "it is a key of the inventory itself")
            try:
                desired.render({key: value})
            except ConfigError as error:
                raise self._error(where, error.message.rpartition("line 1: ")[2], error.hint) from error
        return found

    def _rules(self) -> Rules:
        written = msgspec.structs.asdict(self._file.rollout)
        values = {name: value for name, value in written.items() if value is not UNSET}
        for name in values.keys() & set(Rules.durations):
            values[name] = seconds(values[name])
        rules = Rules(**values)
        for wrong, name, why in (
            (rules.poll <= 0, "poll", "it must be more than 0"),
            (rules.connect_timeout < 1, "connect_timeout", "it must be 1 s or more"),
            (
                rules.healthy_deadline < rules.min_healthy_time,
                "healthy_deadline",
                "it is shorter than min_healthy_time",
            ),
            (
                rules.progress_deadline < rules.healthy_deadline,
                "progress_deadline",
                "it is shorter than healthy_deadline",
            ),
            (
                bool(rules.min_tokens_per_second) != bool(rules.speed_model),
                "min_tokens_per_second",
                "a floor needs `speed_model`, a model that every host has, and the other way round",
            ),
        ):
            if wrong:
                raise self._error(f"$.rollout.{name}", why)
        return rules

    def _local(self, name: str, place: str) -> str:
        """A file of this machine, whose name is relative to the inventory's folder."""
        if not name:
            return ""
        try:
            path = self._path.parent / Path(name).expanduser()
        except RuntimeError as error:
            raise self._error(place, f"{name}: the home folder is unknown") from error
        if not path.is_file():
            raise self._error(place, f"{path}: there is no such file")
        return str(path)

    def _no_twins(self, hosts: tuple[Host, ...]) -> None:
        seen: dict[tuple[str, ...], str] = {}
        for index, host in enumerate(hosts):
            for key, what in (((host.name,), "name"), ((host.address, str(host.port)), "address")):
                if other := seen.get(key):
                    raise self._error(f"$.hosts[{index}].{what}", f"{host.name}: {other} has the same {what}")
                seen[key] = host.name

    def _error(self, place: str, what: str, hint: str = "") -> InventoryInvalid:
        return _invalid(self._path, self._root, place, what, hint)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _text(value: str | float | bool) -> str:
    """A value as the desired-state file has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _invalid(path: Path, root: yaml.Node | None, place: str, what: str, hint: str = "") -> InventoryInvalid:
    """An error with the line of the key that it is about."""
    field = re.search(r"unknown field `([^`]+)`", what)
    node = _node(root, [*_steps(place), *([field[1]] if field else [])])
    line = f":{node.start_mark.line + 1}" if node else ""
    return InventoryInvalid(
        f"{path}{line}: {place.removeprefix('$').removeprefix('.') or 'the file'}: {what}",
        hint=hint or "docs/how-to/roll-out-to-a-fleet.md shows an inventory",
    )


def _steps(place: str) -> Iterator[str | int]:
    for name, index in _STEP.findall(place):
        if name or index:
            yield name or int(index)


def _node(node: yaml.Node | None, steps: list[str | int]) -> yaml.Node | None:
    """The deepest node on the way that the file itself has; a merged or a missing key has none."""
    for step in steps:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            inner = next((key for key, _ in node.value if key.value == step), None)
            value = next((value for key, value in node.value if key.value == step), None)
            inner = value if isinstance(value, yaml.MappingNode | yaml.SequenceNode) and step != steps[-1] else inner
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        if inner is None:
            return node
        node = inner
    return node
