"""A little upstream in two real git repositories, and a series for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from toolchain.series import manifest
from toolchain.stages import Checkout, Pin, Sources

TYPES_H = """\
enum kind {
    KIND_A     = 0,
    KIND_B     = 1,
    KIND_COUNT = 2,
};
"""
TABLE_C = """\
#include "types.h"
static const struct traits table[KIND_COUNT] = {
    [KIND_A] = { "a" },
    [KIND_B] = { "b" },
};
int size_of(enum kind kind) {
    switch (kind) {
        case KIND_A: return 1;
        default: return 0;
    }
}
"""
MAIN_GO = "package main\n\nfunc launch(kind string) {\n\tstart(kind)\n}\n"

SERIES_HEAD: dict[str, Any] = {
    "version": 1,
    "types": [{"name": "new4", "block": 64, "bytes": 34}],
    "facts": {
        "next_id": {
            "target": "llama.cpp",
            "file": "types.h",
            "scope": "enum kind",
            "pattern": r"KIND_COUNT\s*=\s*(\d+)",
        }
    },
}
TYPES_PART: dict[str, Any] = {
    "concern": "types",
    "target": "llama.cpp",
    "serves": ">=1",
    "why": "the type",
    "until": "never",
    "edits": "types.yaml",
    "files": {"src/new.c": "kernels/new.c"},
}
EDITS: list[dict[str, Any]] = [
    {
        "name": "ids",
        "file": "types.h",
        "scope": "enum kind",
        "anchor": "KIND_COUNT",
        "position": "before",
        "insert": "KIND_NEW   = {{ next_id }},\n",
    },
    {
        "name": "count",
        "file": "types.h",
        "scope": "enum kind",
        "anchor": "KIND_COUNT = {{ next_id }}",
        "position": "replace",
        "insert": "KIND_COUNT = {{ next_id + 1 }}",
    },
    {"name": "traits", "file": "table.c", "scope": "traits table[KIND_COUNT]", "position": "start", "insert": "NEW,\n"},
    {
        "name": "size",
        "file": "table.c",
        "scope": "int size_of(",
        "anchor": "case KIND_A:",
        "position": "before",
        "insert": "case KIND_NEW: return {{ types[0].bytes }};\n",
    },
]


class Upstream:
    """Two git repositories that tests commit to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = 1_700_000_000
        for name in ("llama.cpp", "ollama"):
            self.git(name, "init", "-q", "-b", "main")
        self.commit("llama.cpp", {"types.h": TYPES_H, "table.c": TABLE_C}, "first")
        self.commit("ollama", {"main.go": MAIN_GO, "go.mod": "module example.org/mini\n"}, "first")

    def git(self, name: str, *args: str) -> str:
        folder = self.root / name
        folder.mkdir(exist_ok=True, parents=True)
        self.clock += 1
        who = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_AUTHOR_DATE": f"{self.clock} +0000"}
        who |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in who.items()}
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(self.root), **who},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, name: str, files: dict[str, str | None], message: str) -> str:
        for path, text in files.items():
            target = self.root / name / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        self.git(name, "add", "-A")
        self.git(name, "commit", "-q", "-m", message)
        return self.git(name, "rev-parse", "HEAD")

    def sources(self) -> Sources:
        commits = {name: self.git(name, "rev-parse", "HEAD") for name in ("llama.cpp", "ollama")}
        build = int(self.git("llama.cpp", "rev-list", "--count", "HEAD"))
        return Sources(
            ollama=Checkout(
                target="ollama",
                origin="ollama",
                git_dir=self.root / "ollama/.git",
                commit=commits["ollama"],
                describe="v0.33.0",
            ),
            llama_cpp=Checkout(
                target="llama.cpp",
                origin="llama.cpp",
                git_dir=self.root / "llama.cpp/.git",
                commit=commits["llama.cpp"],
                describe=f"b{build}",
            ),
            era="pinned",
            pin=Pin(name=f"b{build}", commit=commits["llama.cpp"], build=build, exact=True),
        )


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream")


SeriesMaker = Callable[..., Path]


@pytest.fixture
def make_series(tmp_path: Path) -> SeriesMaker:
    """Writes a sealed series; keyword arguments replace what series.yaml or the edits say. `more` are further files."""

    def make(
        edits: list[dict[str, Any]] = EDITS, *, name: str = "series", more: dict[str, str] | None = None, **changes: Any
    ) -> Path:
        root = tmp_path / name
        (root / "kernels").mkdir(parents=True)
        (root / "kernels/new.c").write_text("int new_kernel;\n")
        (root / "extra.go.j2").write_text("package main\n\nvar extra = {{ next_id }}\n")
        head: dict[str, Any] = {
            **SERIES_HEAD,
            "parts": [
                TYPES_PART,
                {
                    "concern": "go",
                    "target": "ollama",
                    "serves": ">=0.30",
                    "why": "the server",
                    "until": "never",
                    "edits": "go.yaml",
                    "files": {"extra.go": "extra.go.j2"},
                },
            ],
            **changes,
        }
        (root / "series.yaml").write_text(yaml.safe_dump(head, sort_keys=False))
        (root / "types.yaml").write_text(yaml.safe_dump({"edits": edits}, sort_keys=False))
        (root / "go.yaml").write_text(
            dedent("""\
            edits:
              - name: launch
                file: main.go
                scope: func launch(
                anchor: start(kind)
                position: before
                insert: |
                  kind = known(kind)
            """)
        )
        for path, text in (more or {}).items():
            (root / path).write_text(text)
        manifest.seal(root)
        return root

    return make
