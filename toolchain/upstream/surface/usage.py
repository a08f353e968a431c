"""What an Ollama tree uses of llama.cpp, found in its sources.

Names that C code or CGo is compiled against, names that Go loads at run time, and what passes between Go and the
programs of llama.cpp: flags, environment, endpoints, JSON fields, and the lines of the log that Go looks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from ...core.records import record, sha256_bytes
from ...series.lexing import language_of, mask
from ...sources import eras
from .trees import SourceTree

UseKind = Literal["loaded", "compiled", "flag", "environment", "endpoint", "field", "log", "message"]

IN_CODE: tuple[UseKind, ...] = ("loaded", "compiled")
"""names of llama.cpp in Ollama's code; the other kinds concern llama.cpp's programs"""

_MADE_BY = (Path(__file__), *sorted(Path(eras.__file__).parent.glob("*.py")))
REVISION = sha256_bytes(b"".join(path.read_bytes() for path in _MADE_BY))[:8]
"""version of this module and of the eras; older results are recomputed"""

_NAME = re.compile(r"(?:llama|ggml|gguf|mtmd)_\w+|(?:LLAMA|GGML|GGUF|MTMD)_[A-Z0-9_]+")
_PRIVATE = re.compile(r"(?:de)?quantize_row_\w+|block_\w+")
"""of the headers in ggml's sources, whose names have no prefix"""
_CGO = re.compile(r"\bC\.(?:sizeof_)?(?:struct_|enum_|union_)?(\w+)")
_PREAMBLE = re.compile(r'(/\*(?:(?!\*/)[\s\S])*\*/\n|(?:^//.*\n)+)import "C"$', re.MULTILINE)
"""a comment of C: cgo compiles it"""
_NO_CODE = re.compile(r"^(?://)?[ \t]*#.*|^//|^/\*|\*/$", re.MULTILINE)
_DEFINED = re.compile(r"#\s*define\s+(\w+)")
_LOADER = re.compile(r"dlsym|findProc|FindProc|NewProc|GetProcAddress|RegisterLibFunc")
_LITERAL = re.compile(r'"((?:\\.|[^"\\\n])*)"|`([^`]*)`')
_FLAG = re.compile(r"--[a-z][a-z0-9-]+|-[a-z]{1,4}")
_ENVIRONMENT = re.compile(r"(?:LLAMA|GGML)_[A-Z0-9_]+")
_ENDPOINT = re.compile(r"https?://[^/]*(/[a-z][\w/.-]*)")
_METHOD = re.compile(r"http\.Method(\w+)")
_REGEXP = re.compile(r"regexp\.MustCompile\(\s*$")
_LOOKED_FOR = re.compile(r"strings\.(?:Contains|HasPrefix)\(line,\s*$")
_TAG = re.compile(r'json:"([a-z]\w*)')
_KEY = re.compile(r'(?:^\s*|\{)"([a-z]\w*)":(?!\s+true,)|\w\["([a-z]\w*)"\]\s*=', re.MULTILINE)
_LIST = re.compile(r"^var \w+ = \[\]string\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_TALKING = (
    (("llama-server", "llama runner"), ("llm", "discover", "ml", "envconfig")),
    (('"llama-quantize"',), ("server",)),
)
"""words in files of Ollama that communicate with llama.cpp's programs, and their folders"""
_METHOD_REACH = 400


@record
class Use:
    """Something of llama.cpp that Ollama uses. `text` is its name, path, regular expression or words."""

    kind: UseKind
    text: str
    where: str
    """file and line"""
    program: str = "llama-server"


@record
class Need:
    """A use of llama.cpp, and which of two trees provides it. In neither: not llama.cpp's, or not public."""

    kind: UseKind
    text: str
    where: str
    """file and line in Ollama; empty where only the newer of two Ollamas uses it"""
    in_old: bool
    in_new: bool
    later: str = ""
    """file and line in the newer of two Ollamas; empty where it does not use it, and without a second Ollama"""


@record
class Usage:
    """Everything found in one Ollama tree."""

    describe: str
    era: str
    symbols: tuple[Use, ...]
    server: tuple[Use, ...]


def find(tree: SourceTree, era: eras.Era) -> Usage:
    """Scan an Ollama tree for the ways of its era. Files without the typical words are not read."""
    symbols, server = list[Use](), list[Use]()
    if "cgo" in era.ways:
        symbols += [use for path in _sources(tree, ['import "C"'], ["."]) for use in _File(tree, path).cgo()]
    if "loaded" in era.ways:
        loaders = _sources(tree, ['"ggml_', '"llama_'], ["."])
        symbols += [use for path in loaders for use in _File(tree, path).loaded()]
    if "compat" in era.ways:
        own = [path for path in tree.paths(era.compat) if language_of(path) == "c"]
        symbols += [use for path in own for use in _File(tree, path).compiled()]
    if "programs" in era.ways:
        talking = [path for words, folders in _TALKING for path in _sources(tree, words, folders)]
        server += [use for path in talking for use in _File(tree, path).exchanged()]
    return Usage(describe=tree.describe, era=era.name, symbols=_unique(symbols), server=_unique(server))


def _sources(tree: SourceTree, words: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Go sources with one of the words, without tests."""
    found = tree.containing(words, folders)
    return [path for path in found if path.endswith(".go") and not path.endswith("_test.go")]


def _unique(uses: list[Use]) -> tuple[Use, ...]:
    """The first of each, sorted."""
    first: dict[tuple[str, str, str], Use] = {}
    for use in uses:
        first.setdefault((use.kind, use.text, use.program), use)
    return tuple(first[key] for key in sorted(first))


class _File:
    """A source file of Ollama; comments are ignored."""

    def __init__(self, tree: SourceTree, path: str) -> None:
        self.path = path
        self._raw = (tree.read(path) or b"").decode(errors="replace")

    @cached_property
    def _text(self) -> str:
        return mask(self._raw, language_of(self.path), strings=False)

    @cached_property
    def _code(self) -> str:
        return mask(self._raw, language_of(self.path), strings=True)

    def _use(self, kind: UseKind, text: str, offset: int, program: str = "llama-server") -> Use:
        line = self._raw.count("\n", 0, offset) + 1
        return Use(kind=kind, text=text, where=f"{self.path}:{line}", program=program)

    def _literals(self) -> Iterator[tuple[int, str]]:
        for match in _LITERAL.finditer(self._text):
            yield match.start(), match.group(1) if match.group(1) is not None else match.group(2)

    def cgo(self) -> Iterator[Use]:
        """Names after `C.`, then those in the C of the comment above `import "C"`."""
        for match in _CGO.finditer(self._code):
            if _NAME.fullmatch(match.group(1)) or _PRIVATE.fullmatch(match.group(1)):
                yield self._use("compiled", match.group(1), match.start())
        for preamble in _PREAMBLE.finditer(self._raw):
            own = set(_DEFINED.findall(preamble.group()))
            code = _NO_CODE.sub(lambda match: " " * len(match.group()), preamble.group(1))
            for match in re.finditer(rf"\b(?:{_NAME.pattern})\b", mask(code, "c", strings=True)):
                if match.group() not in own:
                    yield self._use("compiled", match.group(), preamble.start() + match.start())

    def compiled(self) -> Iterator[Use]:
        """Names in C++ of Ollama's own that becomes part of llama.cpp."""
        for match in re.finditer(rf"\b(?:{_NAME.pattern})\b", self._code):
            yield self._use("compiled", match.group(), match.start())

    def loaded(self) -> Iterator[Use]:
        """Names given as text, in a file that looks symbols up."""
        if not _LOADER.search(self._code):
            return
        for offset, text in self._literals():
            if _NAME.fullmatch(text):
                yield self._use("loaded", text, offset)

    def exchanged(self) -> Iterator[Use]:
        """What passes between this file and llama.cpp's programs."""
        program = "llama-quantize" if '"llama-quantize"' in self._text else "llama-server"
        lists = [block.span() for block in _LIST.finditer(self._text)]
        for offset, text in self._literals():
            if any(start < offset < end for start, end in lists):
                yield self._use("message", text, offset, program)
            elif _FLAG.fullmatch(text):
                yield self._use("flag", text, offset, program)
            elif _ENVIRONMENT.fullmatch(text):
                yield self._use("environment", text, offset, program)
            elif endpoint := _ENDPOINT.fullmatch(text):
                yield self._use("endpoint", f"{self._method(offset)} {endpoint.group(1)}", offset, program)
            elif _REGEXP.search(self._code, 0, offset):
                yield from (self._use("log", one, offset, program) for one in _alternatives(text))
            elif _LOOKED_FOR.search(self._code, 0, offset):
                yield self._use("message", text, offset, program)
        if "/completion" in self._text:
            for pattern in (_TAG, _KEY):
                for match in pattern.finditer(self._text):
                    yield self._use("field", match.group(match.lastindex or 1), match.start(), program)

    def _method(self, offset: int) -> str:
        """The HTTP method that is nearest to an address in the text."""
        near = self._code[max(0, offset - _METHOD_REACH) : offset + _METHOD_REACH]
        here = min(offset, _METHOD_REACH)
        found = sorted((abs(match.start() - here), match.group(1)) for match in _METHOD.finditer(near))
        return found[0][1].upper() if found else "GET"


_WORDS = re.compile(r"\((\w+(?:\|\w+)+)\)")


def _alternatives(expression: str) -> list[str]:
    """A regular expression once for each word of its first list of words, since each is another line of the log."""
    found = _WORDS.search(expression)
    if not found:
        return [expression]
    return [expression[: found.start()] + f"({word})" + expression[found.end() :] for word in found.group(1).split("|")]
