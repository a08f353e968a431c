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
from toolchain.text import as_text
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


CALLS = """package llama
// #include "llama.h"
import "C"
func load() {
	p := C.llama_default_params()
	C.ggml_write(nil, p)
	var row C.block_q4_0
}
"""


class Vendored:
    """Releases of an Ollama that contains llama.cpp."""

    def __init__(self, site: Site) -> None:
        self.site = site
        quants = "typedef struct { int d; } block_q4_0;\n"
        self.files = {
            "Makefile.sync": "FETCH_HEAD=abcdef0123456\n",  # pragma: allowlist secret
            "llama/llama.cpp/include/llama.h": LLAMA,
            "ml/backend/ggml/ggml/include/ggml.h": GGML,
            "ml/backend/ggml/ggml/src/ggml-quants.h": quants,
            "llama/llama.go": CALLS,
        }
        (site.ollama / "LLAMA_CPP_VERSION").unlink()
        (site.ollama / "llama/compat/own.cpp").unlink()
        self.release("v0.15.0")

    def release(self, tag: str, *replaced: tuple[str, str]) -> str:
        for old, other in replaced:
            assert any(old in text for text in self.files.values()), old
            self.files = {name: text.replace(old, other) for name, text in self.files.items()}
        made = commit(self.site.ollama, self.files)
        git(self.site.ollama, "tag", tag)
        return made

    def diff(self, old: str, new: str) -> ApiDiff:
        return self.site.diff(f"ollama@{old}", f"ollama@{new}")


@pytest.fixture
def vendored(site: Site) -> Vendored:
    return Vendored(site)


def test_two_ollamas_whose_headers_are_the_same(vendored: Vendored) -> None:
    vendored.release("v0.16.0", ("package llama\n", "package llama\n\n"))
    assert vendored.diff("v0.15.0", "v0.16.0").exit_code == 0, "a line that moved is no change"
    vendored.release("v0.17.0", ("C.ggml_write(nil, p)", "C.ggml_count(nil)"))
    before = snapshot(vendored.site.ollama)
    found = vendored.diff("v0.15.0", "v0.17.0")
    assert (found.old, found.new, found.ollama, found.later) == ("v0.15.0", "v0.17.0", "v0.15.0", "v0.17.0")
    assert (found.verdict, found.exit_code, found.changes) == ("additive", 96 | 4, ())
    assert {(one.text, one.where, one.later) for one in found.names} == {
        ("block_q4_0", "llama/llama.go:7", "llama/llama.go:8"),
        ("llama_default_params", "llama/llama.go:5", "llama/llama.go:6"),
        ("ggml_write", "llama/llama.go:6", ""),
        ("ggml_count", "", "llama/llama.go:7"),
    }
    assert all(one.in_old and one.in_new for one in found.names)
    text = as_text(found)
    assert "v0.17.0 uses no more: ggml_write\n" in text
    assert "v0.17.0 uses newly: ggml_count\n" in text
    assert snapshot(vendored.site.ollama) == before, "a repository is only read"


def test_what_the_older_code_calls_and_the_newer_headers_lack(vendored: Vendored) -> None:
    vendored.release("v0.16.0", ("ggml_write(FILE * to, ", "ggml_write("), ("ggml_set_log(", "ggml_put_log("))
    found = vendored.diff("v0.15.0", "v0.16.0")
    assert {(one.name, one.change, one.effect, one.used) for one in found.changes if one.change != "added"} == {
        ("ggml_write", "signature", "breaking", "llama/llama.go:6"),
        ("ggml_set_log", "removed", "unused", ""),
    }
    assert (found.verdict, found.exit_code) == ("breaking", 96 | 4 | 8 | 16)
    assert vendored.diff("v0.16.0", "v0.15.0").verdict == "breaking", "the other way round as well"


def test_a_name_of_a_private_header_that_went(vendored: Vendored) -> None:
    vendored.release("v0.16.0", ("} block_q4_0;", "} block_q4_0x8;"))
    found = vendored.diff("v0.15.0", "v0.16.0")
    assert (found.verdict, found.exit_code, found.changes) == ("breaking", 96 | 4 | 8, ())
    assert "breaking   lost compiled block_q4_0\n             used at llama/llama.go:7" in as_text(found)


def test_from_one_era_of_ollama_to_the_other(vendored: Vendored) -> None:
    site = vendored.site
    site.change("include/llama.h", "llama_default_params", "llama_usual_params")
    pin = git(site.llama_cpp, "rev-parse", "HEAD")
    for name in vendored.files:
        (site.ollama / name).unlink()
    commit(site.ollama, {"LLAMA_CPP_VERSION": pin, "llama/compat/own.cpp": "ggml_count(0);\n", "llm/run.go": RUNNER})
    git(site.ollama, "tag", "v0.30.0")
    there = vendored.diff("v0.15.0", "v0.30.0")
    assert {one.name: (one.effect, one.used) for one in there.changes if one.change == "removed"} == {
        "llama_default_params": ("breaking", "llama/llama.go:5"),
    }
    assert {(one.text, one.in_old, one.in_new, one.where) for one in there.server} == {
        ("--model", False, True, ""),
        ("--flash-attn", False, True, ""),
    }
    assert {one.text for one in there.names if not one.later} == {"llama_default_params", "ggml_write", "block_q4_0"}
    back = vendored.diff("v0.30.0", "v0.15.0")
    lost = {(one.text, one.where.partition(":")[0]) for one in back.server if one.in_old and not one.in_new}
    assert (back.verdict, lost) == ("breaking", {("--model", "llm/run.go"), ("--flash-attn", "llm/run.go")})
    against_head = site.diff("ollama@v0.15.0", "HEAD")
    assert (against_head.verdict, against_head.ollama, against_head.later) == ("breaking", "v0.15.0", "")


@pytest.mark.slow
def test_two_ollamas_on_the_command_line(vendored: Vendored) -> None:
    vendored.release("v0.16.0", ("C.ggml_write(nil, p)", ""))
    site = vendored.site
    flags = ["--llama-cpp", str(site.llama_cpp), "--ollama", str(site.ollama), "--workspace", str(site.root / "w")]
    flags += ["--old", "ollama@v0.15.0", "--new", "ollama@v0.16.0"]
    done = inv("api.diff", "--json", *flags, cwd=site.root)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["later"]) == (96 | 4, "additive", "v0.16.0")
    done = inv("api.diff", *flags, cwd=site.root)
    assert done.returncode == 96 | 4
    assert "v0.16.0 uses no more: ggml_write" in done.stdout
    done = inv("api.diff", *flags, "--surface-only", cwd=site.root)
    assert (done.returncode, done.stdout.splitlines()[-1].strip()) == (0, "verdict: identical")


@pytest.mark.parametrize(
    ("new", "flags", "error", "words"),
    [
        ("v99", {}, UnknownRevision, "no branch, tag or commit 'v99'"),
        ("b99999", {}, PinMissing, "b99999"),
        ("./nowhere", {}, UnknownRevision, "nowhere"),
        ("ROOT/empty", {}, HeaderInvalid, r"not a tree of llama\.cpp"),
        ("ROOT/ollama", {}, HeaderInvalid, r"not a tree of llama\.cpp"),
        ("ROOT/ollama@v99", {}, UnknownRevision, "v99"),
        ("ollama@v99", {}, UnknownRevision, "no branch, tag or commit 'v99'"),
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
