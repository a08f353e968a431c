"""Whether the programs of a llama.cpp tree take the flags, serve the endpoints and log the lines that Ollama expects.

A regular expression that Ollama matches with the log is matched with the output of the tree's own format strings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...core.records import sha256_file
from ...series.lexing import mask
from .trees import SourceTree
from .usage import Use

REVISION = sha256_file(Path(__file__))[:8]
"""version of this module; older results are recomputed"""

_LOGGING = ("common", "src", "ggml/src", "tools/server", "tools/mtmd")
_ARGUMENTS = {
    "llama-server": ("common/arg.cpp",),
    "llama-quantize": ("tools/quantize/quantize.cpp", "examples/quantize/quantize.cpp"),
}
_SERVER = ("tools/server", "examples/server")
_INTERFACE = (*_SERVER, "common")
_STRING = r'"(?:\\.|[^"\\\n])*"'
_STRINGS = re.compile(rf"{_STRING}(?:\s*(?:PRI[a-zA-Z0-9]+\s*)?{_STRING})*")
_PIECE = re.compile(rf"({_STRING})|(PRI[a-zA-Z]+)")
_ROUTE = re.compile(r'\b(get|post|del)\s*\(\s*(?:[\w.>-]+\s*\+\s*)?"(/[^"]*)"', re.IGNORECASE)
_FORMAT = re.compile(r"%(?P<flags>[-+ #0]*)(?P<width>\d*)(?:\.\d+)?(?:hh|h|ll|l|z|j|t)?(?P<kind>[a-zA-Z%])")
_SAMPLES = {**dict.fromkeys("diu", "1"), **dict.fromkeys("fFgGeE", "1.50"), **dict.fromkeys("xXp", "7f"), "c": "c"}
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r"\\(.)")
_META = re.compile(r"\\[a-zA-Z]|\[[^\]]*\]|\(\?[^)]*\)|[.^$*+?()|{}]+\??")
_LEAST, _SHORT = 4, 6
_FUNCTION = re.compile(r"[a-z]\w*_\w+:?")
_IDENTIFIER = re.compile(r"[a-z]+_\w+")


def provided(uses: Sequence[Use], tree: SourceTree) -> frozenset[Use]:
    """Those of the uses that the programs of a tree provide."""
    routes = _routes(tree)
    words = {program: _words(tree, paths) for program, paths in _ARGUMENTS.items()}
    found = {use for use in uses if use.kind == "endpoint" and use.text in routes}
    found |= {use for use in uses if use.kind == "flag" and use.text in words[use.program]}
    found |= _mentioned([use for use in uses if use.kind == "field"], tree, _INTERFACE)
    found |= _mentioned([use for use in uses if use.kind in ("environment", "message")], tree, _LOGGING)
    return frozenset(found | _logged([use for use in uses if use.kind == "log"], tree))


def _mentioned(uses: Sequence[Use], tree: SourceTree, folders: Sequence[str]) -> set[Use]:
    asked = {use.text if use.kind == "message" else f'"{use.text}"': use for use in uses}
    return {asked[text] for text in tree.present(sorted(asked), folders)}


def _text(tree: SourceTree, path: str) -> str:
    return mask((tree.read(path) or b"").decode(errors="replace"), "c", strings=False)


def _words(tree: SourceTree, paths: Sequence[str]) -> frozenset[str]:
    return frozenset(_joined(found) for path in paths for found in re.findall(_STRING, _text(tree, path)))


def _routes(tree: SourceTree) -> frozenset[str]:
    files = [path for path in tree.containing(['"/health"'], _SERVER) if path.endswith("pp")]
    found = [match for path in files for match in _ROUTE.finditer(_text(tree, path))]
    return frozenset(f"{match.group(1).upper()} {match.group(2)}" for match in found)


def _logged(uses: Sequence[Use], tree: SourceTree) -> set[Use]:
    needles = {use: needle for use in uses if (needle := _needle(use.text))}
    found: set[Use] = set()
    for path in tree.containing(sorted(set(needles.values())), _LOGGING):
        text = _text(tree, path)
        literals = {_joined(match.group()) for match in _STRINGS.finditer(text)}
        for use, needle in needles.items():
            forms = [literal for literal in literals if needle in literal]
            if forms and use not in found and _prints(use.text, forms, text):
                found.add(use)
    return found


def _needle(expression: str) -> str:
    """The longest literal part of a regular expression that a format contains; empty if there is none."""
    try:
        re.compile(expression)
    except re.error:
        return ""
    parts = [part.replace("\\", "").strip() for part in _META.split(expression)]
    # a function's name comes from __func__, and a single short word occurs in half of all files
    parts = [part for part in parts if not _FUNCTION.fullmatch(part) and (len(part) > _SHORT or not part.isalnum())]
    return max((part for part in parts if len(part) >= _LEAST), key=len, default="")


def _prints(expression: str, forms: Sequence[str], text: str) -> bool:
    wanted = re.compile(expression)
    # most formats begin with __func__, so strings may be functions of this file
    names = [name for name in _IDENTIFIER.findall(expression) if name in text]
    return any(wanted.search(printed(form, word)) for form in forms for word in ("word", *names))


def printed(form: str, word: str) -> str:
    """What a format of printf may print, with `word` for every string."""

    def sample(match: re.Match[str]) -> str:
        kind = match["kind"]
        text = "%" if kind == "%" else _SAMPLES.get(kind, word)
        width = int(match["width"] or 0)
        return text.ljust(width) if "-" in match["flags"] else text.rjust(width)

    return _FORMAT.sub(sample, form)


def _joined(strings: str) -> str:
    """The value of neighbouring string literals; a PRI macro between them is a conversion to an integer."""
    pieces = []
    for match in _PIECE.finditer(strings):
        pieces.append("d" if match.group(2) else _ESCAPE.sub(_unescaped, match.group(1)[1:-1]))
    return "".join(pieces)


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match.group(1), match.group())
