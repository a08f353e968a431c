"""From the command line to a verdict, on real git repositories; and everything that can be wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, git, new, snapshot
from tests.tasks.test_command import inv
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, FetchFailed, HeaderInvalid, NotARepository, PinMissing, UnknownRevision
from toolchain.core.records import read, to_json, write
from toolchain.core.run import Run
from toolchain.upstream.surface import ApiDiff, Snapshot, compare, take

from .conftest import GGML, LLAMA
from .test_usage import ARG, FIT, MODEL, PROBE, SERVER

BACKEND = "#pragma once\nextern int ggml_backend_count(void);\nextern void * ggml_backend_load(const char * path);\n"
TREE = {
    "include/llama.h": LLAMA,
    "ggml/include/ggml.h": GGML,
    "ggml/include/ggml-backend.h": BACKEND,
    "common/arg.cpp": ARG,
    "common/fit.cpp": FIT,
    "src/model.cpp": MODEL,
    "tools/server/server.cpp": SERVER,
}
RUNNER = 'package llm\n// llama-server\nvar args = []string{"--model"}\nfunc run() { start("--flash-attn") }\n'


class Site:
    """Both repositories, and a workspace."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.llama_cpp = new(root / "llama.cpp")
        self.first = commit(self.llama_cpp, TREE)
        self.ollama = new(root / "ollama")
        compat = "int x = ggml_count(0);\n"
        files = {"LLAMA_CPP_VERSION": f"{self.first}\n", "llama/compat/own.cpp": compat, "discover/probe.go": PROBE}
        commit(self.ollama, {**files, "llm/run.go": RUNNER})

    def change(self, path: str, old: str, text: str) -> str:
        content = (self.llama_cpp / path).read_text()
        assert old in content
        return commit(self.llama_cpp, {path: content.replace(old, text)})

    def run(self, **flags: str) -> Run:
        paths = {"sources.llama_cpp": str(self.llama_cpp), "sources.ollama": str(self.ollama)}
        named = {name.replace("__", "."): value for name, value in flags.items()}
        return Run(load(flags={**paths, "workspace": str(self.root / "workspace"), **named}), Console(json=True))

    def diff(self, old: str = "", new: str = "", **flags: str) -> ApiDiff:
        return compare(self.run(**flags), old, new)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_from_the_pin_to_the_newest(site: Site) -> None:
    assert site.diff().verdict == "identical"
    site.change("ggml/include/ggml.h", "GGML_TYPE_Q8 = 8,", "GGML_TYPE_Q8 = 8, GGML_TYPE_Q4,")
    site.change("include/llama.h", "float rope;", "float rope, scale;")
    assert site.diff().verdict == "changed but unused"
    site.change("ggml/include/ggml-backend.h", "ggml_backend_load(", "ggml_backend_open(")
    before = snapshot(site.llama_cpp)
    broken = site.diff()
    assert broken.verdict == "breaking"
    assert [(one.name, one.used) for one in broken.changes if one.effect == "breaking"] == [
        ("ggml_backend_load", "discover/probe.go:5")
    ]
    assert snapshot(site.llama_cpp) == before, "a repository is only read"


@pytest.mark.slow
def test_the_command_line(site: Site) -> None:
    site.change("common/arg.cpp", "--flash-attn", "--attention")
    flags = ["--llama-cpp", str(site.llama_cpp), "--ollama", str(site.ollama), "--workspace", str(site.root / "w")]
    done = inv("api.diff", "--json", *flags, cwd=site.root)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["changes"]) == (96 | 4 | 8, "breaking", [])
    assert [use["text"] for use in found["server"] if use["in_old"] and not use["in_new"]] == ["--flash-attn"]
    done = inv("api.diff", *flags, "--new", "./llama.cpp", "--surface-only", cwd=site.root)
    assert (done.returncode, done.stdout.splitlines()[-1].strip()) == (0, "verdict: identical")
    done = inv("api.snapshot", "--json", *flags[:2], *flags[4:], "--tree", "nowhere", cwd=site.root)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (15, "UnknownRevision")


def test_snapshots_are_kept_by_commit_and_damage_is_noticed(site: Site) -> None:
    first = take(site.run(), site.first)
    kept = site.root / "workspace" / "api" / f"{site.first}-macos-arm64.json"
    assert read(kept, Snapshot) == first
    write(kept, replace(first, describe="kept"))
    assert take(site.run(), site.first).describe == "kept"
    for damage in (kept.read_text()[:500], to_json(replace(first, format=0)), "[]"):
        kept.write_text(damage)
        assert take(site.run(), site.first) == first
        assert read(kept, Snapshot) == first


def test_another_repository_and_a_bare_one(site: Site) -> None:
    fork = site.root / "fork.git"
    git(site.root, "clone", "--quiet", "--bare", str(site.llama_cpp), str(fork))
    newer = site.change("include/llama.h", "float rope;", "float rope, scale;")
    git(fork, "fetch", "--quiet", str(site.llama_cpp), f"{newer}:refs/heads/feature/turbo")
    assert site.diff(old=str(fork), new=f"{fork}@feature/turbo").verdict == "changed but unused"
    assert site.diff(old=str(fork), new=f"{fork}@master").verdict == "identical"


@pytest.mark.parametrize(
    ("new", "flags", "error", "words"),
    [
        ("v99", {}, UnknownRevision, "no branch, tag or commit 'v99'"),
        ("b99999", {}, PinMissing, "b99999"),
        ("./nowhere", {}, UnknownRevision, "nowhere"),
        ("ROOT/empty", {}, HeaderInvalid, r"not a tree of llama\.cpp"),
        ("ROOT/ollama", {}, HeaderInvalid, r"not a tree of llama\.cpp"),
        ("ROOT/ollama@v99", {}, UnknownRevision, "v99"),
        ("HEAD", {"sources__ollama_ref": "v99"}, UnknownRevision, "v99"),
        ("HEAD", {"sources__ollama": "/"}, NotARepository, "not a git repository"),
    ],
)
def test_what_is_not_there(site: Site, new: str, flags: dict[str, str], error: type[Exception], words: str) -> None:
    (site.root / "empty").mkdir()
    with pytest.raises(error, match=words):
        site.diff(new=new.replace("ROOT", str(site.root)), **flags)


def test_an_unknown_platform(site: Site) -> None:
    with pytest.raises(ConfigError, match="amiga-68k"):
        compare(site.run(), "", "", "amiga-68k")


def test_headers_that_do_not_parse(site: Site) -> None:
    site.change("include/llama.h", "float rope;", "float rope")
    with pytest.raises(HeaderInvalid, match=r"include/llama\.h:5: expected ';'"):
        site.diff()
    assert not list((site.root / "workspace" / "api").glob(f"{git(site.llama_cpp, 'rev-parse', 'HEAD')}*"))


def test_a_header_that_is_missing(site: Site) -> None:
    (site.llama_cpp / "ggml/include/ggml.h").unlink()
    commit(site.llama_cpp, {})
    with pytest.raises(HeaderInvalid, match=r"no ggml/include/ggml\.h"):
        site.diff()


def test_a_partial_clone_without_the_contents(site: Site) -> None:
    partial = site.root / "partial.git"
    site.change("include/llama.h", "float rope;", "float rope, scale;")
    git(site.root, "clone", "--quiet", "--bare", "--filter=blob:none", f"file://{site.llama_cpp}", str(partial))
    with pytest.raises(FetchFailed, match="content is not in") as caught:
        site.diff(new=str(partial))
    assert "fetch it again" in caught.value.hint
