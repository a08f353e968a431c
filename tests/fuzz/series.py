"""A series of patches from elsewhere, and turboquant.yaml: YAML that says what is read, edited and written."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from tests.series.conftest import SERIES_HEAD, TYPES_PART
from toolchain.core import config, temporary
from toolchain.core.cachetypes import table
from toolchain.core.config import rows
from toolchain.series import edit, manifest, patched, render
from toolchain.series.manifest import Series
from toolchain.text import as_text

from .subject import Subject, damaged, odd

TREE = "enum kind {\n    KIND_A = 0,\n    KIND_COUNT = 1,\n};\nint size_of(enum kind kind) {\n    return 1;\n}\n"
_FACTS = {"next_id": 1, "types": [{"name": "new4", "block": 64, "bytes": 34, "bits": 4}], "upstream_types": []}
HEAD: dict[str, Any] = {
    **SERIES_HEAD,
    "parts": [{**TYPES_PART, "files": {"src/new.c": "kernels/new.c", "src/made.c": "made.c.j2"}}],
    "proven": {"builds": ">=1,<=9", "newest": "b9"},
}
EDITS: dict[str, Any] = {
    "edits": [
        {
            "name": "ids",
            "file": "types.h",
            "scope": "enum kind",
            "anchor": "KIND_COUNT",
            "position": "before",
            "insert": "KIND_NEW = {{ next_id }},\n",
            "not-if": {"file": "types.h", "pattern": "KIND_NEW"},
        },
        {"name": "size", "file": "types.h", "scope": "int size_of(", "position": "start", "insert": "work();\n"},
    ]
}
_SETTINGS: dict[str, Any] = {
    "workspace": "ws",
    "deploy": {"port": 11434, "host": "127.0.0.1", "prefix": "p", "kv_cache_type": "turbo4", "label": "io.a.b"},
    "sources": {"ollama": "https://example.org/o", "offline": True},
    "verify": {"types": ["turbo4"], "timeout_s": 5},
    "publish": {"url": "https://example.org", "timeout_s": 1.5},
    "watch": {"titles": ["a"]},
}
_WORDS = (
    "../escaped",
    "/tmp/escaped",
    "(a+)+$",
    "(?P<x>",
    "{{ ''.__class__ }}",
    "{% for i in range(10**9) %}{% endfor %}",
    ">=" + "9" * 5000,
    "types.yaml\0",
    "kernels/" + "x" * 300,
    "{{ 'x' * 10**9 }}",
    "\n",
    "KIND_A",
    "all",
    "start",
    64,
    0,
)
_TOKENS = (
    b"&a [*a]",
    b"*a",
    b"!!python/object:os.system x",
    b"? ",
    b"- ",
    b"\t",
    b"|+9\n",
    b"!!set 1",
    b"%YAML 9.9\n---\n",
    b"<<: *a",
    b"'",
)


def _yaml(value: Any, dice: random.Random) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=dice.random() < 0.5).encode(errors="surrogatepass")


def _made(dice: random.Random) -> bytes:
    """series.yaml and the file of edits, behind a line of `===`."""
    which = dice.random()
    head = odd(HEAD, dice, _WORDS) if which < 0.5 else HEAD
    edits = odd(EDITS, dice, _WORDS) if which > 0.5 else EDITS
    data = _yaml(head, dice) + b"\n===\n" + _yaml(edits, dice)
    return data if dice.random() < 0.6 else damaged(data, dice, _TOKENS)


def _read(path: Path) -> None:
    """Loads the series, renders its edits into a file, and writes what it adds into a folder."""
    root = path.parent / "series"
    (root / "kernels").mkdir(parents=True)
    head, _, edits = path.read_bytes().partition(b"\n===\n")
    (root / "series.yaml").write_bytes(head)
    (root / "types.yaml").write_bytes(edits)
    (root / "kernels/new.c").write_text("int new_kernel;\n")
    (root / "made.c.j2").write_text("int made_{{ next_id }};\n")
    manifest.seal(root)
    series = manifest.load(root)
    manifest.proven(root)
    table.type_table(series.types)
    for kind in series.types:
        table.bits_per_value(kind)
    if series.proven:
        series.proven.beyond("10")
    for loaded in series.parts:
        _apply(series, loaded, path.parent)


def _apply(series: Series, loaded: manifest.LoadedPart, folder: Path) -> None:
    for era in loaded.part.ranges:
        manifest.allows(loaded.part, era, "10488")
    files = {name: render.own_file(loaded, name, _FACTS) for name in loaded.part.files}
    for one in loaded.edits:
        inserted = render.fill(one.insert, _FACTS, one.name)
        edit.candidates(one, TREE)
        files[one.file] = edit.splice_all(TREE, edit.locate(one, TREE, inserted)).encode()
    with temporary.folder("fuzz", within=folder / "private") as private:
        patched.write_out(files, private)


def _settings(dice: random.Random) -> bytes:
    data = _yaml(odd(_SETTINGS, dice, _WORDS), dice)
    return data if dice.random() < 0.5 else damaged(data, dice, _TOKENS)


def _read_settings(path: Path) -> None:
    found = config.load(file=path, environ={}, flags={})
    as_text(rows(found))


SERIES = Subject(make=_made, read=_read, name="both.yaml")
SETTINGS = Subject(make=_settings, read=_read_settings, name="turboquant.yaml")
