"""LLVM's intermediate code with a call before every load and store, and a counter in every block.

The compiler has optimised it before, so what is counted is what is left to do. Addresses of a function's own variables
are passed over: they are registers on a GPU, as far as they fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BY_CLASS = {
    "float": "fadd fsub fmul fneg fcmp",
    "integer": "add sub mul shl lshr ashr and or xor icmp sdiv udiv srem urem",
    "convert": "trunc zext sext fptrunc fpext fptoui fptosi uitofp sitofp",
    "special": "fdiv frem",
    "select": "select",
}
CLASSES = {name: kind for kind, names in _BY_CLASS.items() for name in names.split()}
_FLOAT_CALLS = re.compile(
    r"llvm\.(minnum|maxnum|minimum\w*|maximum\w*|fabs|floor|ceil|trunc|rint|round|roundeven|copysign)\b"
)
_SPECIAL_CALLS = re.compile(
    r"llvm\.(sqrt|exp|exp2|log|log2|log10|sin|cos|tan|tanh|pow|powi|ldexp)\b|(exp|log|sin|cos|tan|pow)\w*f?$"
)
_INTEGER_CALLS = re.compile(r"llvm\.(ctpop|ctlz|cttz|fshl|fshr|bswap|bitreverse|abs|[us](min|max)|[us]\w+\.sat)\b")

_INSTRUCTION = re.compile(r"  (?:(%\S+) = )?(?:tail |notail |musttail )?(\w+)(?: (.*))?$")
_LOAD = re.compile(r"(?:atomic )?(?:volatile )?(.+?), ptr (.+?)(?: syncscope\(\S+\))?(?: [a-z_]+)?, align \d+")
_STORE = re.compile(r"(?:atomic )?(?:volatile )?(.+), ptr (.+?)(?: syncscope\(\S+\))?(?: [a-z_]+)?, align \d+")
_CALL = re.compile(r"(?:[\w()\d]+ )*?(?:<[^>]*> |\{[^}]*\} |\w+ )?@([\w.$]+)\((.*)\)")
_DEBUG = re.compile(r"!dbg !(\d+)")
_VECTOR = re.compile(r"<(\d+) x (\w+)>")
_NUMBERED = re.compile(r"^!(\d+) = (?:distinct )?!(\w+)\((.*)\)$", re.MULTILINE)
_FIELD = re.compile(r'(\w+): (?:!(\d+)|"((?:[^"\\]|\\.)*)"|(\d+))')
_GLOBAL = re.compile(r'@("[^"]+"|[\w.$]+)')
_VARIABLE = re.compile(r'^@("[^"]+"|[\w.$]+) = [^=\n]*?global (.*section "[^"]*msl_threadgroup".*)$', re.MULTILINE)
_FUNCTION = re.compile(r'^define [^@\n]*@("[^"]+"|[\w.$]+)\((.*?)^\}', re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"%[\w.$-]+")
_WIDENS = re.compile(r"  %\S+ = [sz]ext (?:nneg )?i(?:8|16|32) %\S+ to i64")
_DIVISIONS = frozenset({"sdiv", "udiv", "srem", "urem"})
_DIVISOR = re.compile(r"(?:exact )?(i(?:8|16|32|64)) \S+, (%[^\s,]+)")
_TERMINATORS = frozenset({"br", "ret", "switch", "unreachable", "indirectbr", "resume"})
_COLLECTIVES = frozenset({"msl_exchange", "msl_multiply", "msl_move", "msl_barrier"})


@dataclass(frozen=True)
class Site:
    """Where an instruction came from: the user's file and line, and the way there through inlined calls."""

    place: tuple[str, int]
    way: tuple[tuple[int, int], ...]
    """line and column of each call on the way, outermost first; the order of ways is the order of the program"""


@dataclass
class Profile:
    """What the numbers in an instrumented library mean."""

    sites: list[tuple[str, int]] = field(default_factory=list)
    """file and line of each number"""
    blocks: list[dict[str, dict[str, int]]] = field(default_factory=list)
    """for each block: "file:line" and operations of each class that it takes there each time"""
    variables: list[str] = field(default_factory=list)
    """names of the threadgroup variables"""
    uses: list[list[int]] = field(default_factory=list)
    """for each kernel the numbers of those that it uses"""

    def placed(self, files: Mapping[str, str]) -> Profile:
        """The same with other names of files, where `files` has them."""

        def of(place: str) -> str:
            file, _, line = place.rpartition(":")
            return f"{files.get(file, file)}:{line}"

        return Profile(
            sites=[(files.get(file, file), line) for file, line in self.sites],
            blocks=[{of(place): counts for place, counts in block.items()} for block in self.blocks],
            variables=self.variables,
            uses=self.uses,
        )


class _Locations:
    """The user's line that an instruction came from: the innermost that lies outside the harness's headers."""

    def __init__(self, text: str, own: Path) -> None:
        self.nodes = {
            number: (kind, {f[0]: f[1] or f[2] or f[3] for f in _FIELD.findall(body)})
            for number, kind, body in _NUMBERED.findall(text)
        }
        self.own = str(own)
        self.known: dict[str, Site] = {}

    def find(self, number: str) -> Site:
        if number not in self.known:
            self.known[number] = self._find(number)
        return self.known[number]

    def _find(self, number: str) -> Site:
        place: tuple[str, int] | None = None
        way = []
        while number in self.nodes:
            fields = self.nodes[number][1]
            line = int(fields.get("line", "0"))
            file = self.file(fields.get("scope", ""))
            way.append((line, int(fields.get("column", "0"))))
            if place is None and not file.startswith((self.own, "<")):
                place = file, line
            number = fields.get("inlinedAt", "")
        return Site(place or ("", 0), tuple(reversed(way)))

    def file(self, scope: str) -> str:
        while scope in self.nodes:
            kind, fields = self.nodes[scope]
            if kind == "DIFile":
                name = fields.get("filename", "")
                return name if name.startswith(("/", "<")) else f"{fields.get('directory', '')}/{name}"
            scope = fields.get("file") or fields.get("scope", "")
        return ""


def instrument(text: str, own: Path, constants: Collection[str]) -> tuple[str, Profile]:
    """Instrumented code and what its numbers mean. `own` holds the harness's headers, `constants` are the names of
    function constants, whose loads count for nothing because a GPU has them as literals."""
    locations = _Locations(text, own)
    pass_ = _Pass(locations, frozenset(f"@{name}" for name in constants))
    lines = text.split("\n")
    free = _widenings(lines)
    out = [line if number in free else pass_.line(line) for number, line in enumerate(lines)]
    count, ranks = len(pass_.profile.blocks), pass_.ranks()
    table = _variables(text, pass_.profile)
    out += [
        f"@msl_variables = constant [{len(table)} x {{ ptr, i64 }}] [{', '.join(table)}]",
        f"@msl_variable_count = constant i32 {len(table) - 1}",
        "declare void @msl_read(ptr, i64, i32)",
        "declare void @msl_write(ptr, i64, i32)",
        "declare void @msl_atomic(ptr, i64, i32)",
        "declare void @msl_divisor(i64, i32)",
        f"@msl_ranks = constant [{len(ranks) or 1} x i32] [{', '.join(f'i32 {rank}' for rank in ranks or [0])}]",
        f"@msl_blocks = global [{max(count, 1)} x i64] zeroinitializer",
        f"@msl_block_count = constant i32 {count}",
    ]
    return "\n".join(out) + "\n", pass_.profile


def _widenings(lines: Sequence[str]) -> set[int]:
    """Lines that widen a number to 64 bits for nothing but addresses, which count for nothing: a GPU's loads and stores
    take an index as it is."""
    free, found = set[int](), dict[str, int]()
    elsewhere = set[str]()
    for number, line in enumerate(lines):
        if line.startswith("}"):
            free |= {at for name, at in found.items() if name not in elsewhere}
            found, elsewhere = {}, set()
        elif line.startswith("  ") and " = getelementptr " not in line:
            result, *used = _NAME.findall(line.partition(", !dbg")[0]) or [""]
            widens = _WIDENS.match(line) is not None
            found |= {result: number} if widens else {}
            elsewhere.update(used if widens else [result, *used])
    return free


def _variables(text: str, profile: Profile) -> list[str]:
    """A table of the threadgroup variables; notes in `profile` which kernel uses which, itself or by a call."""
    sizes = {m.group(1): _size(_leading_type(m.group(2))) for m in _VARIABLE.finditer(text)}
    names = list(sizes)
    profile.variables = [_unmangled(name) for name in names]
    functions = {m.group(1): set(_GLOBAL.findall(m.group(2))) for m in _FUNCTION.finditer(text)}
    while f"msl_run_{len(profile.uses)}" in functions:
        seen, todo = set[str](), [f"msl_run_{len(profile.uses)}"]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += functions.get(one, ())
        profile.uses.append([number for number, name in enumerate(names) if name in seen])
    return [*(f"{{ ptr, i64 }} {{ ptr @{name}, i64 {size} }}" for name, size in sizes.items()),
            "{ ptr, i64 } { ptr null, i64 0 }"]  # fmt: skip


def _unmangled(name: str) -> str:
    """The variable's own name at the end of a mangled one, where its length stands before it."""
    whole = re.sub(r"(_\d+)?(\.\d+)*\"?$", "", name)
    for length in re.finditer(r"\d+", whole):
        if len(whole) - length.end() == int(length.group()):
            return whole[length.end() :]
    return whole


class _Pass:
    def __init__(self, locations: _Locations, constants: frozenset[str]) -> None:
        self.locations, self.constants = locations, constants
        self.profile = Profile()
        self.numbers: dict[Site, int] = {}
        self.last = Site(("", 0), ())
        self.inside = False
        self.wide = 0
        self.own: set[str] = set()  # pointers into the function's own variables
        self.block: dict[str, Counter[str]] = {}

    def site(self, line: str) -> Site:
        """Of an instruction; where the optimiser has forgotten it, that of the one before."""
        found = _DEBUG.search(line)
        site = self.locations.find(found.group(1)) if found else self.last
        if site.place[1]:
            self.last = site
        return self.last

    def innermost(self, line: str) -> str:
        found = _DEBUG.search(line)
        fields = self.locations.nodes[found.group(1)][1] if found else {}
        return self.locations.file(fields.get("scope", ""))

    def number(self, site: Site) -> int:
        if site not in self.numbers:
            self.numbers[site] = len(self.profile.sites)
            self.profile.sites.append(site.place)
        return self.numbers[site]

    def ranks(self) -> list[int]:
        """For each number its rank in the order of the program, by which the executor keeps lanes in step."""
        order = {site: rank for rank, site in enumerate(sorted(self.numbers, key=lambda site: site.way))}
        return [order[site] for site in self.numbers]

    def count(self, line: str, kind: str, amount: int = 1) -> None:
        file, number = self.site(line).place
        self.block.setdefault(f"{file}:{number}", Counter())[kind] += amount

    def line(self, line: str) -> str:
        if line.startswith("define "):
            self.inside, self.own, self.block = True, set(), {}
            self.last = self.site(line)
            return line
        if line.startswith("}"):
            self.inside = False
            return line
        if not self.inside or not line.startswith("  "):
            return line
        found = _INSTRUCTION.match(line)
        if not found:
            return line
        result, name, rest = found.group(1), found.group(2), found.group(3) or ""
        if name == "alloca":
            self.own.add(result)
        elif name == "getelementptr":
            base = re.search(r"ptr (%[\w.$\"-]+)", rest)
            if base and base.group(1) in self.own:
                self.own.add(result)
        elif name in CLASSES:
            self.count(line, CLASSES[name], _lanes(rest, name))
            return self.divisor(line, rest) + line if name in _DIVISIONS else line
        elif name in ("load", "store"):
            return self.access(line, name, rest)
        elif name in ("atomicrmw", "cmpxchg"):
            pointer = re.search(r"ptr (%[\w.$\"-]+|@[\w.$]+)", rest)
            if pointer:
                return self.call("atomic", pointer.group(1), "4" if " i64" not in rest else "8", line) + line
        elif name == "call":
            return self.called(line, rest)
        elif name in _TERMINATORS:
            return self.close() + line
        return line

    def divisor(self, line: str, rest: str) -> str:
        """A look at what is divided by, since not every processor minds a zero."""
        found = _DIVISOR.match(rest)
        if not found:
            return ""
        self.wide += 1
        wide = f"%msl.divisor.{self.wide}"
        kind, value = found.groups()
        before = f"  {wide} = zext {kind} {value} to i64\n" if kind != "i64" else ""
        value = wide if before else value
        return f"{before}  call void @msl_divisor(i64 {value}, i32 {self.number(self.site(line))})\n"

    def close(self) -> str:
        number = len(self.profile.blocks)
        self.profile.blocks.append({place: dict(counts) for place, counts in self.block.items()})
        self.block = {}
        at = f"getelementptr inbounds (i64, ptr @msl_blocks, i64 {number})"
        return (
            f"  %msl.{number}.a = load i64, ptr {at}\n  %msl.{number}.b = add i64 %msl.{number}.a, 1\n"
            f"  store i64 %msl.{number}.b, ptr {at}\n"
        )

    def call(self, what: str, pointer: str, size: str, line: str) -> str:
        return f"  call void @msl_{what}(ptr {pointer}, i64 {size}, i32 {self.number(self.site(line))})\n"

    def access(self, line: str, name: str, rest: str) -> str:
        found = (_LOAD if name == "load" else _STORE).match(rest)
        if not found:
            return line
        kind, pointer = found.group(1), found.group(2)
        if name == "store":
            kind = _leading_type(kind)
        if pointer in self.constants or pointer.removesuffix("_msl_defined") in self.constants:
            return line
        if pointer in self.own:
            if not self.innermost(line).startswith(self.locations.own):  # a collective's way to the executor is none
                self.count(line, f"thread_{name}s")
            return line
        what = "atomic" if rest.startswith("atomic") else "read" if name == "load" else "write"
        return self.call(what, pointer, _size(kind), line) + line

    def called(self, line: str, rest: str) -> str:
        found = _CALL.match(rest.split(" #")[0].split(", !")[0])
        name = found.group(1) if found else ""
        if name in _COLLECTIVES:
            at = line.rindex("-99")
            return line[:at] + str(self.number(self.site(line))) + line[at + 3 :]
        if name.startswith(("llvm.fmuladd", "llvm.fma.")):
            self.count(line, "float", 2 * _lanes(rest, name))
        elif _FLOAT_CALLS.match(name):
            self.count(line, "float", _lanes(rest, name))
        elif _SPECIAL_CALLS.match(name):
            self.count(line, "special", _lanes(rest, name))
        elif _INTEGER_CALLS.match(name):
            self.count(line, "integer", _lanes(rest, name))
        elif found and name.startswith(("llvm.memcpy", "llvm.memmove", "llvm.memset")):
            parts = _arguments(found.group(2))
            size = parts[2].split()[-1]
            before = ""
            if not name.startswith("llvm.memset") and _operand(parts[1]) not in self.own:
                before = self.call("read", _operand(parts[1]), size, line)
            if _operand(parts[0]) not in self.own:
                before += self.call("write", _operand(parts[0]), size, line)
            return before + line
        return line


def _lanes(rest: str, name: str) -> int:
    found = _VECTOR.search(rest if name != "select" else rest.split(",", 1)[1])
    return int(found.group(1)) if found else 1


def _leading_type(text: str) -> str:
    """The type that a typed value begins with."""
    if text[0] in "<[{":
        closing = {"<": ">", "[": "]", "{": "}"}[text[0]]
        depth = 0
        for at, character in enumerate(text):
            depth += (character == text[0]) - (character == closing)
            if depth == 0:
                return text[: at + 1]
    return text.split(" ", 1)[0]


_SIZES = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "ptr": 8}


def _size(kind: str) -> str:
    """Bytes of a type, as a constant of the intermediate code."""
    scalar = _VECTOR.fullmatch(kind)
    count, one = (int(scalar.group(1)), scalar.group(2)) if scalar else (1, kind)
    if one in _SIZES:
        return str(count * _SIZES[one])
    if re.fullmatch(r"i\d+", one):
        return str((count * int(one[1:]) + 7) // 8)
    return f"ptrtoint (ptr getelementptr ({kind}, ptr null, i64 1) to i64)"


def _arguments(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _operand(argument: str) -> str:
    at = argument.find("getelementptr")
    return argument[at:].strip() if at >= 0 else argument.split()[-1]
