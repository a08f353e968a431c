"""YAML files as plain data, within bounds: an alias can make a few lines stand for gigabytes."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from .records import read_bytes

MOST_BYTES = 1 << 20
"""no document of ours is longer"""
_MOST_SIZE = 4 << 20
"""values and letters, counted as often as aliases repeat them"""
_DEEPEST = 50
_LONGEST_NUMBER = 1024
"""bits"""


def read_yaml(path: Path) -> Any:
    """The file's data. Raises `OSError`, `UnicodeDecodeError`, `yaml.YAMLError`."""
    return parse_yaml(read_bytes(path, limit=MOST_BYTES).decode())


def parse_yaml(text: str) -> Any:
    """The data of a YAML document. Raises `yaml.YAMLError`, also for what is too deep or stands for too much."""
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a SafeLoader


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with bounds, whose every refusal is a `yaml.YAMLError` with its place.

    Refuses a mapping with the same key twice, which YAML itself forbids and PyYAML allows.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refusal(f"more than {_DEEPEST} levels", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not alias:
            self._sizes[node] = self._measured(node)
        elif node is not None and node not in self._sizes:
            raise _refusal("an alias within what it stands for", node.start_mark)
        return node

    def _measured(self, node: yaml.Node) -> int:
        """The size of a node whose parts have one."""
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value)
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        size = 1 + sum(map(self._sizes.__getitem__, parts))
        if size > _MOST_SIZE:
            raise _refusal(f"stands for more than {_MOST_SIZE} values", node.start_mark)
        return size

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # a half of a surrogate pair is no text
            found = super().construct_object(node, deep=deep)
            if isinstance(found, int) and found.bit_length() > _LONGEST_NUMBER:
                raise OverflowError
            return found
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _refusal(f"{str(node.value)[:80]!r} is no {node.tag.rpartition(':')[2]}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):  # of !!set 1
            raise _refusal("not a mapping", node.start_mark)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refusal("a list or a mapping as a key", key_node.start_mark)
            if key in seen:
                raise _refusal(f"the key {key!r} occurs twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refusal(what: str, place: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, place)
