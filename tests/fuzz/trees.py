"""Git trees of others: names that lead out, links, names that differ in case alone, objects that no git would write.

The objects are written as they stand, since git itself refuses to make many of them.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import yaml

from toolchain.contract.check import check
from toolchain.core import config
from toolchain.core.console import Console
from toolchain.series import manifest
from toolchain.series.render import render
from toolchain.sources import create, prepare, scratch_root
from toolchain.text import as_text

from .series import EDITS, HEAD, TREE
from .subject import Subject

_FILE, _LINK, _FOLDER, _MODULE = "100644", "120000", "40000", "160000"
_NAMES = (
    *(
        "..",
        ".",
        ".git",
        ".GIT",
        "git~1",
        ".gitattributes",
        ".gitmodules",
        "a\nb",
        "a\0b",
        "",
        "/",
        "a/b",
        "../../escaped",
    ),
    *(
        "-rf",
        "--output=x",
        ":(glob)*",
        "\x1b[2J",
        "TYPES.H",
        "Src",
        "SRC",
        "con",
        "\u2028",
        "\udcff",
        "x" * 300,
        "types.h",
    ),
    *("\\..\\x", "A" * 5000, "src", "llama", "%s", "$(touch escaped)", "{{ 1 }}", "'", '"', " ", "HEAD", "objects"),
)
_TARGETS = (
    "../../../outside",
    "../../../outside/canary",
    "/etc",
    "..",
    ".",
    ".git",
    "types.h",
    "a" * 5000,
    "a\nb",
    "src",
)
_CONTENTS = (
    "",
    "* filter=x diff=x merge=x ident export-subst",
    '[submodule "x"]\n\tpath = ../x\n\turl = -u./x\n',
    "\0" * 100,
    "b1\n",
    "b99999999999999999999\n",
    "--upload-pack=x",
    "../../x",
    TREE * 2,
    "enum kind {" * 2000,
    "\r\n" * 100,
    "v1.2\n",
)
_LLAMA: dict[str, Any] = {"types.h": TREE, "docs": {"read.md": "read"}}
_OLLAMA: dict[str, Any] = {
    "LLAMA_CPP_VERSION": "b1\n",
    "go.mod": "module example.org/x\n",
    "llama": {"compat": {"001.patch": ""}},
}


def _made(dice: random.Random) -> bytes:
    """Two trees: lists of a mode, a name and a text, or the entries of a folder."""
    trees = [_entries(_LLAMA), _entries(_OLLAMA)]
    for _ in range(dice.randint(1, 3)):
        _add(dice.choice(trees), dice)
    return json.dumps({"trees": trees, "sorted": dice.random() < 0.8}).encode()


def _entries(files: dict[str, Any]) -> list[Any]:
    return [
        [_FOLDER, name, _entries(part)] if isinstance(part, dict) else [_FILE, name, part]
        for name, part in files.items()
    ]


def _add(entries: list[Any], dice: random.Random) -> None:
    folders = [entry[2] for entry in entries if entry[0] == _FOLDER]
    if folders and dice.random() < 0.3:
        _add(dice.choice(folders), dice)
        return
    mode = dice.choice((_FILE, _FILE, _LINK, _FOLDER, _MODULE, "100755", "0", "777777", "40755"))
    name = dice.choice(_NAMES)
    if dice.random() < 0.3:  # in place of one that is there
        name = dice.choice(entries)[1]
        entries[:] = [entry for entry in entries if entry[1] != name]
    content: Any = dice.choice(_TARGETS if mode == _LINK else _CONTENTS)
    if mode == _FOLDER:
        content = [[_FILE, dice.choice(_NAMES), dice.choice(_CONTENTS)] for _ in range(dice.choice((0, 1, 3)))]
        for _ in range(dice.choice((0, 0, 0, 60))):
            content = [[_FOLDER, dice.choice(("a", "..")), content]]
    entries.append([mode, name, content])


def _object(git_dir: Path, kind: str, data: bytes) -> bytes:
    whole = f"{kind} {len(data)}\0".encode() + data
    digest = hashlib.sha1(whole, usedforsecurity=False)
    path = git_dir / "objects" / digest.hexdigest()[:2] / digest.hexdigest()[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zlib.compress(whole, 1))
    return digest.digest()


def _tree(git_dir: Path, entries: list[Any], *, in_order: bool) -> bytes:
    made = []
    for mode, name, content in entries:
        folder = isinstance(content, list)
        digest = (
            _tree(git_dir, content, in_order=in_order)
            if folder
            else _object(git_dir, "blob", content.encode(errors="surrogateescape"))
        )
        raw = name.encode(errors="surrogateescape")
        made.append((raw + b"/" * folder, mode.encode() + b" " + raw + b"\0" + digest))
    return _object(git_dir, "tree", b"".join(one for _, one in (sorted(made) if in_order else made)))


def _repository(git_dir: Path, entries: list[Any], *, in_order: bool, tag: str) -> None:
    for folder in ("objects", "refs/heads", "refs/tags"):
        (git_dir / folder).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    who = "A <a@example.org> 1767225600 +0000"
    tree = _tree(git_dir, entries, in_order=in_order).hex()
    commit = _object(git_dir, "commit", f"tree {tree}\nauthor {who}\ncommitter {who}\n\nfirst\n".encode()).hex()
    for ref in ("heads/main", f"tags/{tag}"):
        (git_dir / "refs" / ref).write_text(f"{commit}\n")


def _read(path: Path) -> None:
    """What a run does with sources, up to their work trees."""
    case = json.loads(path.read_bytes())
    llama, ollama = path.parent / "llama.cpp", path.parent / "ollama"
    _repository(llama, case["trees"][0], in_order=case["sorted"], tag="b1")
    _repository(ollama, case["trees"][1], in_order=case["sorted"], tag="v0.33.0")
    root = path.parent / "series"
    (root / "kernels").mkdir(parents=True)
    (root / "series.yaml").write_text(yaml.safe_dump(HEAD))
    (root / "types.yaml").write_text(yaml.safe_dump(EDITS))
    (root / "kernels/new.c").write_text("int new_kernel;\n")
    (root / "made.c.j2").write_text("int made_{{ next_id }};\n")
    manifest.seal(root)
    flags = {"workspace": str(path.parent / "ws"), "sources.ollama": str(ollama), "sources.llama_cpp": str(llama)}
    settings, console = config.load(environ={}, flags=flags), Console(json=True)
    found = prepare(settings, console)
    series = manifest.load(root)
    as_text(check(series, found, console))
    create(found, render(series, found), scratch_root(settings, found), console)


TREES = Subject(make=_made, read=_read, name="trees.json")
