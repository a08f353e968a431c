"""The C surface of a tree: what its public headers declare, as records that can be stored and compared."""

from __future__ import annotations

from typing import Literal

from ...core.records import record

PLATFORMS = {
    "macos-arm64": "arm64-apple-macos14.0",
    "linux-x86_64": "x86_64-unknown-linux-gnu",
    "linux-aarch64": "aarch64-unknown-linux-gnu",
}
"""Names of the platforms and clang's names for them."""
FORMAT = 1
"""version of the snapshot format; a cached one of another version is taken again"""


@record
class Declared:
    """A function, a variable or a typedef. Types are canonical, so `llama_token` shows as `int`."""

    name: str
    kind: Literal["function", "variable", "typedef"]
    type: str
    header: str
    deprecated: bool


@record
class Enumerator:
    """A name of an enum and its value."""

    name: str
    value: int
    deprecated: bool = False


@record
class Enum:
    """An enum in the order of its declaration. One without a name is called after its first enumerator."""

    name: str
    type: str
    header: str
    values: tuple[Enumerator, ...]


@record
class Field:
    """A member of a struct or union; a member that is a struct itself is replaced by its own members (`caps.async`)."""

    name: str
    type: str
    offset: int
    """bits from the start of the outermost type"""
    bits: int
    """bits of storage, or the width of a bit-field"""
    bitfield: bool = False


@record
class Struct:
    """A struct or union. An incomplete (opaque) one has no size."""

    name: str
    kind: Literal["struct", "union"]
    header: str
    complete: bool
    size: int = 0
    """bytes"""
    align: int = 0
    """bytes"""
    fields: tuple[Field, ...] = ()


@record
class Macro:
    """A macro without parameters that is a constant."""

    name: str
    value: int | float | str
    header: str


@record
class Snapshot:
    """The surface of one tree for one platform; every sequence is sorted by name."""

    format: int
    platform: str
    origin: str
    """commit id, or the folder that the headers were read from"""
    describe: str
    headers: tuple[str, ...]
    declared: tuple[Declared, ...]
    enums: tuple[Enum, ...]
    structs: tuple[Struct, ...]
    macros: tuple[Macro, ...]


def names(surface: Snapshot) -> frozenset[str]:
    """All that a surface declares, enumerators among it."""
    values = (value.name for enum in surface.enums for value in enum.values)
    groups = (surface.declared, surface.enums, surface.structs, surface.macros)
    return frozenset((*values, *(one.name for group in groups for one in group)))
