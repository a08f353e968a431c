"""From preprocessed Metal to C++: finds kernels, instantiations and function constants, and rewrites what C++ lacks.

Edits stay on their lines, so a compiler's message about the result names the user's file and line.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import KernelInvalid, NotModelled
from .tokens import Token, after_template, matching, parameters_at, spell, split, tokenize

HEADERS = Path(__file__).parent / "msl"
_SECTION = "__DATA,msl_threadgroup" if sys.platform == "darwin" else "msl_threadgroup"
STORAGE = f'static __attribute__((section("{_SECTION}")))'

# Features of MSL that the harness lacks, so that each is refused by name.
UNKNOWN_WORDS = re.compile(
    r"texture(1d|2d|3d|cube|_buffer)\w*|depth(2d|cube)\w*|sampler|imageblock\w*|threadgroup_imageblock|ray_data|object_data"
    r"|visible_function_table|intersection_function_table|acceleration_structure|instance_acceleration_structure"
    r"|simdgroup_event|simdgroup_async_copy|cooperative_tensor|tensor|interpolant|patch_control_point|mesh_grid_properties"
    r"|atomic_thread_fence|os_log\w*|quad_\w+|simd_shuffle_and_fill_(up|down)|command_buffer|render_command|compute_command"
)
UNKNOWN_QUALIFIERS = frozenset({"vertex", "fragment"})
POSITIONS = frozenset(
    {
        "thread_position_in_grid",
        "threadgroup_position_in_grid",
        "thread_position_in_threadgroup",
        "threads_per_threadgroup",
        "threadgroups_per_grid",
        "threads_per_grid",
        "dispatch_threads_per_threadgroup",
    }
)
SCALARS = frozenset(
    {
        "thread_index_in_threadgroup",
        "thread_index_in_simdgroup",
        "simdgroup_index_in_threadgroup",
        "simdgroups_per_threadgroup",
        "threads_per_simdgroup",
        "thread_execution_width",
    }
)
_IGNORED = frozenset(
    {"kernel", "max_total_threads_per_threadgroup", "unroll", "maybe_unused", "fallthrough", "nodiscard"}
)
_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="})
_SWIZZLE = re.compile(r"[xyzw]{2,4}|[rgba]{2,4}")
_HALF = re.compile(r"(\d*\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(bf|BF|[hH]?)")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: `binding` is buffer, constant, threadgroup or the name of a position attribute."""

    name: str
    binding: str
    index: int
    reference: bool


@dataclass(frozen=True)
class Kernel:
    """A function that can be dispatched: `host_name` is the name that the host requests, `function` its name in C++."""

    host_name: str
    function: str
    parameters: tuple[Parameter, ...]
    file: str
    line: int


@dataclass
class Translation:
    """The contents of one file. `text` is C++; entries for chosen kernels are added by `entries`."""

    text: str
    kernels: dict[str, Kernel]
    constants: dict[str, str] = field(default_factory=dict)
    """function constants: name and the expression of its number"""
    types: dict[str, str] = field(default_factory=dict)
    """function constants: name and type"""


class _Translator:
    def __init__(self, text: str, fixed: Mapping[int | str, bool | int | float]) -> None:
        self.fixed = fixed
        # its argument may name macros, which are already expanded; loops work without it
        self.text = text = re.sub(r"^[ \t]*#[ \t]*pragma[ \t]+unroll.*$", "", text, flags=re.MULTILINE)
        self.tokens = list(tokenize(text, HEADERS))
        self.edits: list[tuple[int, int, str]] = []
        self.functions: dict[str, tuple[Parameter, ...]] = {}
        self.templates: set[str] = set()
        self.kernels: dict[str, Kernel] = {}
        self.constants: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.members: set[str] = set()

    def read(self) -> Translation:
        self.refuse()
        self.top(0, len(self.tokens), ())
        self.words()
        out, at = [], 0
        for start, end, new in sorted(self.edits, key=lambda edit: (edit[0], -edit[1])):
            if start < at:
                continue  # inside code that is already replaced
            out += [self.text[at:start], new, "\n" * (self.text.count("\n", start, end) - new.count("\n"))]
            at = end
        out.append(self.text[at:])
        return Translation("".join(out), self.kernels, self.constants, self.types)

    def replace(self, first: Token, last: Token, new: str) -> None:
        self.edits.append((first.start, last.end, new))

    # -- declarations ------------------------------------------------------------------------------

    def top(self, begin: int, end: int, space: tuple[str, ...]) -> None:
        """The declarations between two token indices, in the namespaces `space`."""
        tokens, at = self.tokens, begin
        while at < end:
            stop, opens = at, -1
            while stop < end and tokens[stop].text not in ";}":
                if tokens[stop].text == "{":
                    opens = stop
                    break
                stop = matching(tokens, stop) + 1 if tokens[stop].text in ("(", "[", "[[") else stop + 1
            head = tokens[at:stop]
            if opens < 0:
                self.declaration(head, space)
                at = stop + 1
                continue
            close = matching(tokens, opens)
            words = {token.text for token in head}
            if "namespace" in words or (head and head[0].text == "extern" and len(head) == 2):
                inner = space if head[0].text == "extern" else (*space, *(t.text for t in head[1:] if t.kind == "word"))
                self.top(opens + 1, close, inner)
            elif "(" not in words and words & {"struct", "class", "union"}:
                self.fields(opens + 1, close)
            elif self.is_kernel(head):
                self.definition(head, space)
            elif "=" not in words and not words & {"enum", "operator"}:
                self.function(head)
            at = close + 1
            # code after a class or an initialiser belongs to the same declaration
            if "(" not in words:
                while at < end and tokens[at - 1].text != ";" and words & {"struct", "class", "union", "enum", "="}:
                    at += 1

    @staticmethod
    def is_kernel(head: list[Token]) -> bool:
        opens = parameters_at(head)
        return any(token.text == "kernel" for token in head[after_template(head) : opens])

    def fields(self, begin: int, end: int) -> None:
        for before, token, after in zip(
            self.tokens[begin - 1 : end], self.tokens[begin:end], self.tokens[begin + 1 : end + 1], strict=False
        ):
            if token.kind == "word" and after.text in (";", ",", "[", "=") and before.text not in (".", "->"):
                self.members.add(token.text)

    def declaration(self, head: list[Token], space: tuple[str, ...]) -> None:
        if not head:
            return
        name = _host_name(head)
        if head[0].text == "template" and (len(head) < 2 or head[1].text != "<"):
            if self.is_kernel(head) or name:
                self.instantiation(head, name, space)
        elif any(token.text == "function_constant" for token in head) and not self.is_kernel(head):
            self.constant(head, space)

    def instantiation(self, head: list[Token], name: str, space: tuple[str, ...]) -> None:
        last = len(head) - 1
        if head[last].text == ")":
            last = (
                next(i for i, token in enumerate(head) if token.text == "(" and matching(head, i) == len(head) - 1) - 1
            )
        depth, first = 0, last
        while first > 0:
            depth += {">": 1, "<": -1}.get(head[first].text, 0)
            if depth == 0:
                break
            first -= 1
        function = head[first - 1]
        if not name:
            raise NotModelled(f"{_at(function)}: an instantiated kernel without host_name: {function.text}")
        if function.text not in self.functions:
            raise KernelInvalid(f"{_at(function)}: {name}: there is no kernel {function.text}")
        whole = "::".join((*space, spell(head[first - 1 : last + 1])))
        self.add(Kernel(name, whole, self.functions[function.text], function.file, function.line))
        self.replace(head[0], head[-1], "")

    def add(self, kernel: Kernel) -> None:
        earlier = self.kernels.get(kernel.host_name)
        if earlier:
            raise KernelInvalid(
                f"{kernel.file}:{kernel.line}: the kernel {kernel.host_name} was already defined on line {earlier.line}"
            )
        self.kernels[kernel.host_name] = kernel

    def constant(self, head: list[Token], space: tuple[str, ...]) -> None:
        at = next(i for i, token in enumerate(head) if token.text == "function_constant")
        name, kind = head[at - 2], [t for t in head[: at - 2] if t.text not in ("constant", "const", "static")]
        if space or head[at - 1].text != "[[" or name.kind != "word":
            raise NotModelled(f"{_at(head[at])}: a function constant in this place")
        number = spell(head[at + 2 : matching(head, at + 1)])
        value = self.fixed.get(name.text, self.fixed.get(_sum(number)))
        if value is not None:
            literal = f"{value.hex()}f" if isinstance(value, float) else str(int(value))
            new = f"static constexpr {spell(kind)} {name.text} = {literal}; enum {{ {name.text}_msl_defined = 1 }}"
            self.replace(head[0], head[-1], new)
            return
        self.constants[name.text] = number
        self.types[name.text] = spell(kind)
        new = f"extern const {spell(kind)} {name.text}; extern const unsigned char {name.text}_msl_defined"
        self.replace(head[0], head[-1], new)

    def definition(self, whole: list[Token], space: tuple[str, ...]) -> None:
        head = whole[after_template(whole) :]
        opens = parameters_at(head)
        close = matching(head, opens)
        name = head[opens - 1]
        parameters = self.parameters(head[opens + 1 : close])
        self.functions[name.text] = parameters
        if whole[0].text != "template":
            host = _host_name(head[:opens]) or name.text
            self.add(Kernel(host, "::".join((*space, name.text)), parameters, name.file, name.line))
        self.attributes([*head[:opens], *head[close + 1 :]])

    def function(self, head: list[Token]) -> None:
        """Check that every pointer and reference has an address space: MSL requires it, C++ does not."""
        opens = parameters_at(head)
        for part in split(head[opens + 1 : matching(head, opens)]) if opens < len(head) else []:
            texts = {token.text for token in part}
            if texts & {"*", "&"} and not texts & ({"device", "constant", "threadgroup", "thread"}):
                raise KernelInvalid(f"{_at(part[-1])}: the parameter {part[-1].text} has no address space")

    def parameters(self, tokens: list[Token]) -> tuple[Parameter, ...]:
        found: list[Parameter] = []
        used: dict[str, int] = {"buffer": 0, "threadgroup": 0}
        for part in split(tokens):
            opens = next((i for i, token in enumerate(part) if token.text == "[["), len(part))
            words = [token for token in part[:opens] if token.kind == "word"]
            name, texts = words[-1], {token.text for token in part[:opens]}
            binding, index = "", -1
            for attribute in split(part[opens + 1 : -1]) if opens < len(part) else []:
                key = attribute[0].text
                if key in ("buffer", "threadgroup") and len(attribute) == 4:
                    try:
                        binding, index = key, int(attribute[2].text, 0)
                    except ValueError:
                        raise NotModelled(f"{_at(attribute[0])}: [[{spell(attribute)}]]: not a plain number") from None
                elif key in POSITIONS | SCALARS and len(attribute) == 1:
                    binding = key
                else:
                    raise NotModelled(f"{_at(attribute[0])}: the attribute [[{spell(attribute)}]] of a parameter")
            if opens < len(part):
                self.replace(part[opens], part[-1], "")
            if not binding and not texts & {"*", "&"}:
                raise KernelInvalid(f"{_at(name)}: the parameter {name.text} of a kernel is bound to nothing")
            if not binding or binding in used:
                space = texts & {"device", "constant", "threadgroup"}
                if not space:
                    raise KernelInvalid(f"{_at(name)}: the parameter {name.text} has no address space")
                slot = "threadgroup" if "threadgroup" in space else "buffer"
                index = used[slot] if index < 0 else index
                used[slot] = max(used[slot], index + 1)
                binding = "constant" if "constant" in space else slot
                if not 0 <= index < 31:
                    raise KernelInvalid(f"{_at(name)}: {name.text}: there is no {slot} {index}, only 0 to 30")
            found.append(Parameter(name.text, binding, index, "&" in texts))
        return tuple(found)

    def attributes(self, tokens: list[Token]) -> None:
        for at, token in enumerate(tokens):
            if token.text == "[[":
                for attribute in split(tokens[at + 1 : matching(tokens, at)]):
                    if attribute[0].text not in _IGNORED | {"host_name"}:
                        raise NotModelled(f"{_at(token)}: the attribute [[{spell(attribute)}]] of a kernel")
                self.replace(token, tokens[matching(tokens, at)], "")

    # -- words -------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Refuse known features that are not modelled."""
        previous = ""
        for token, following in zip(self.tokens, [*self.tokens[1:], *self.tokens[-1:]], strict=True):
            if token.kind == "word" and previous not in (".", "->"):
                starts = previous in ("", ";", "}", "]]", ">")
                called = following.text in ("(", "<") or following.kind == "word"
                if (token.text in UNKNOWN_QUALIFIERS and starts and following.kind == "word") or (
                    called and previous != "::" and UNKNOWN_WORDS.fullmatch(token.text)
                ):
                    raise NotModelled(f"{_at(token)}: {token.text}")
            previous = token.text

    def words(self) -> None:
        tokens, done = self.tokens, 0
        ends = deque(sorted((start, end) for start, end, _ in self.edits))
        for at, token in enumerate(tokens):
            while ends and ends[0][0] <= token.start:
                done = max(done, ends.popleft()[1])
            if token.start < done:
                continue
            before = tokens[at - 1].text if at else ";"
            after = tokens[at + 1].text if at + 1 < len(tokens) else ";"
            if token.kind == "number":
                if found := _HALF.fullmatch(token.text):
                    # MSL has no double: a plain literal is a float
                    kind = {"": "float", "h": "half", "bf": "bfloat"}[found.group(2).lower()]
                    self.replace(token, token, f"(({kind}){found.group(1)}f)")
            elif token.text == "[[":
                self.attribute(at)
            elif token.kind != "word":
                continue
            elif before in (".", "->"):
                if _SWIZZLE.fullmatch(token.text) and after != "(" and token.text not in self.members:
                    which = ",".join(str("xyzw".find(c) if c in "xyzw" else "rgba".find(c)) for c in token.text)
                    how = "msl_set" if after in _ASSIGNMENTS else "msl_get"
                    self.replace(token, token, f"template {how}<{which}>()")
            elif token.text in ("device", "thread"):
                self.replace(token, token, "")
            elif token.text == "kernel":
                self.replace(token, token, "static")  # so that unused ones are not compiled
            elif token.text == "constant":
                self.replace(token, token, "const")
            elif token.text == "threadgroup":
                self.replace(token, token, STORAGE if self.is_variable(at) else "")
            elif token.text == "is_function_constant_defined" and after == "(":
                self.replace(token, tokens[at + 3], f"(bool)({tokens[at + 2].text}_msl_defined)")

    def attribute(self, at: int) -> None:
        """An attribute outside of a kernel's head: of a function type, or of a statement."""
        close = matching(self.tokens, at)
        words = [attribute[0].text for attribute in split(self.tokens[at + 1 : close])]
        if all(word in _IGNORED or word in ("clang", "gnu") for word in words):
            return
        for word in words:
            if word not in POSITIONS | SCALARS | {"buffer", "threadgroup", "host_name"}:
                raise NotModelled(f"{_at(self.tokens[at])}: the attribute [[{word}]]")
        self.replace(self.tokens[at], self.tokens[close], "")

    def is_variable(self, at: int) -> bool:
        """Whether `threadgroup` begins the declaration of a variable, not a pointer's or a reference's type."""
        depth, names = 0, 0
        for token in self.tokens[at + 1 : at + 60]:
            if token.text == "<":
                depth += 1
            elif token.text in (">", ">>"):
                depth -= len(token.text)
            elif depth == 0:
                if token.text in (";", "[", "="):
                    return names >= 2
                if token.kind != "word" and token.text != "::":
                    return False
                names += 1
        return False


def _at(token: Token) -> str:
    return f"{token.file}:{token.line}"


def _host_name(head: Iterable[Token]) -> str:
    tokens = list(head)
    for at, token in enumerate(tokens):
        if token.text == "host_name" and at + 2 < len(tokens):
            return tokens[at + 2].text.strip('"')
    return ""


def _sum(number: str) -> int:
    """The number of a function constant that is written as a sum of plain numbers; else -1."""
    parts = number.replace("(", " ").replace(")", " ").split("+")
    return sum(int(part) for part in parts) if all(part.strip().isdigit() for part in parts) else -1


def read(text: str, fixed: Mapping[int | str, bool | int | float] | None = None) -> Translation:
    """What `clang -E` made of a Metal source, as C++; `fixed` has values of function constants by number or name.

    Raises `NotModelled` and `KernelInvalid` with file and line.
    """
    return _Translator(text, fixed or {}).read()
