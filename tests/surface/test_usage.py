"""What an Ollama tree uses, and whether a llama.cpp tree provides it: from sources as both projects write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.sources import eras
from toolchain.upstream.surface import server, usage
from toolchain.upstream.surface.trees import FolderTree
from toolchain.upstream.surface.usage import Use

from .conftest import tree

PROBE = """package discover
// dlsym(base, "ggml_not_this_one")
func probe(base handle) {
	count, _ := dlsym(base, "ggml_backend_count")
	load, _ := dlsym(base, `ggml_backend_load`)
	driver, _ := dlsym(base, "cuInit")
	slog.Debug("ggml_backend_words are no name")
}
"""

RUNNER = """package llm

// runs llama-server with "--never-passed"
import "net/http"

var prefixes = []string{
	"GGML_ASSERT", // comment with "quotes"
	"out of memory",
}

var layers = regexp.MustCompile(`offloaded\\s+(\\d+)/(\\d+)\\s+layers to GPU`)
var buffer = regexp.MustCompile(`(\\S+)\\s+(model|KV)\\s+buffer size\\s*=\\s*([\\d.]+)\\s*MiB`)
var fitted = regexp.MustCompile(`fit_impl:\\s+-\\s+(\\d+)\\s+overflowing`)
var other = regexp.MustCompile(`^cuda_v(\\d+)$`)

type answer struct {
	Tokens int `json:"n_tokens,omitempty"`
}

func start(port int) {
	params := []string{"--model", path, "-c", "512", "-ngl", "--flash-attn", "on"}
	os.Setenv("LLAMA_ARG_FIT", "1")
	request(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/health", port), nil)
	body := map[string]any{
		"n_predict": 7,
	}
	body["cache_prompt"] = true
	known := map[string]bool{
		"gemma9": true,
	}
	request(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/completion", port), body)
	if strings.Contains(line, "system_info:") {
	}
	switch arch {
	case "bert":
	}
}
"""

QUANTIZE = """package server
func quantize() {
	path := FindLlamaCppBinary("llama-quantize")
	args := []string{"--allow-requantize", "--tensor-type"}
}
"""

VENDORED = """package llama
// #include "llama.h"
import "C"
func load() { // C.llama_in_a_comment()
	p := C.llama_default_params()
	var q C.struct_llama_params
	_ = C.enum_ggml_type(C.GGML_TYPE_F16)
	C.free(x)
	log("C.llama_in_text()")
}
"""

ARG = r"""
// add_opt({"--commented-out"})
add_opt(common_arg({"-m", "--model"}, "FNAME", "the model"));
add_opt(common_arg({"-c", "--ctx" "-size"}, "N", "context"));
add_opt(common_arg({"-ngl", "--flash-attn"}, "N", "\"--quoted\" layers")).set_env("LLAMA_ARG_FIT"));
"""

FIT = r"""
static void fit_impl(void) {
    LOG("%s: - %3" PRIu64 " overflowing\n", __func__, n);
    LOG("system_info: n_threads = %d", 4);
}
"""

MODEL = r"""
LLAMA_LOG_INFO("%s: offloaded %d/%d "
               "layers to GPU\n", __func__, a, b);
LLAMA_LOG_INFO("%s: %12s model buffer size = %8.2f MiB\n", __func__, name, size);
"""

SERVER = r"""
svr.get ("/health", health);
svr->Post(prefix + "/v1/completion", complete);
json(data, "n_predict", "cache_prompt");
"""


def find(era: str, root: Path, **files: str) -> usage.Usage:
    return usage.find(
        tree({name.replace("__", "/") + ".go": text for name, text in files.items()}, root), eras.named(era)
    )


def test_names_loaded_at_run_time(tmp_path: Path) -> None:
    found = find("pinned", tmp_path, discover__probe=PROBE, discover__probe_test=PROBE.replace("_load", "_in_a_test"))
    assert [(use.kind, use.text, use.where) for use in found.symbols] == [
        ("loaded", "ggml_backend_count", "discover/probe.go:4"),
        ("loaded", "ggml_backend_load", "discover/probe.go:5"),
    ]


def test_names_that_ollamas_own_c_uses(tmp_path: Path) -> None:
    compat = '// ggml_comment\nint x = ggml_count(node, "ggml_text"); enum ggml_type t = GGML_TYPE_F16;\n'
    (tmp_path / "llama/compat/models").mkdir(parents=True)
    (tmp_path / "llama/compat/models/one.cpp").write_text(compat)
    (tmp_path / "llama/compat/001.patch").write_text("+ggml_patched()\n")
    found = usage.find(FolderTree(tmp_path), eras.named("pinned"))
    assert {use.text for use in found.symbols} == {"ggml_count", "ggml_type", "GGML_TYPE_F16"}
    assert {use.where for use in found.symbols} == {"llama/compat/models/one.cpp:2"}


def test_names_called_through_cgo(tmp_path: Path) -> None:
    found = find("vendored", tmp_path, llama__llama=VENDORED, llama__plain="package llama\nvar x = C.llama_no()\n")
    assert {use.text for use in found.symbols} == {
        "llama_default_params",
        "llama_params",
        "ggml_type",
        "GGML_TYPE_F16",
    }
    assert {use.kind for use in found.symbols} == {"compiled"}
    assert found.server == ()


@pytest.mark.parametrize(
    "preamble",
    [
        "/*\n#cgo CPPFLAGS: -DGGML_USE_FAST\n#include <ggml_no.h>\n#define GGML_OWN 2\nCODE\n*/\n",
        "// #cgo CPPFLAGS: -DGGML_USE_FAST\n// #include <ggml_no.h>\n// #define GGML_OWN 2\n// CODE\n",
    ],
)
def test_names_in_the_c_of_a_preamble(tmp_path: Path, preamble: str) -> None:
    code = 'static int f(void) { return ggml_count(GGML_OWN, "ggml_text"); }'
    text = f'package ggml\n// ggml_before()\n\n{preamble.replace("CODE", code)}import "C"\nvar x = C.block_q4_0\n'
    found = find("vendored", tmp_path, ml__ggml=text)
    line = text[: text.index("ggml_count")].count("\n") + 1
    assert [(use.text, use.where) for use in found.symbols] == [
        ("block_q4_0", f"ml/ggml.go:{text.count(chr(10))}"),
        ("ggml_count", f"ml/ggml.go:{line}"),
    ]


def test_what_passes_between_go_and_the_programs(tmp_path: Path) -> None:
    found = find("pinned", tmp_path, llm__run=RUNNER, server__quantize=QUANTIZE, server__other='var x = "--unrelated"')
    by_kind: dict[str, list[str]] = {}
    for use in found.server:
        by_kind.setdefault(use.kind, []).append(use.text)
    assert by_kind["flag"] == ["--allow-requantize", "--flash-attn", "--model", "--tensor-type", "-c", "-ngl"]
    assert by_kind["endpoint"] == ["GET /health", "POST /v1/completion"]
    assert by_kind["environment"] == ["LLAMA_ARG_FIT"]
    assert by_kind["field"] == ["cache_prompt", "n_predict", "n_tokens"]
    assert by_kind["message"] == ["GGML_ASSERT", "out of memory", "system_info:"]
    assert len(by_kind["log"]) == 5
    assert {use.program for use in found.server if use.where.startswith("server/")} == {"llama-quantize"}


@pytest.fixture
def programs(tmp_path: Path) -> FolderTree:
    files = {
        "common/arg.cpp": ARG,
        "common/fit.cpp": FIT,
        "src/model.cpp": MODEL,
        "tools/server/server.cpp": SERVER,
        "tools/quantize/quantize.cpp": 'if (arg == "--allow-requantize") {}\n// "--tensor-type"\n',
        "docs/readme.md": "buffer size = %f MiB out of memory",
    }
    return tree(files, tmp_path / "llama.cpp")


def test_what_the_programs_provide(tmp_path: Path, programs: FolderTree) -> None:
    found = find("pinned", tmp_path / "ollama", llm__run=RUNNER, server__quantize=QUANTIZE)
    provided = {use.text for use in server.provided(found.server, programs)}
    missing = {use.text for use in found.server} - provided
    assert missing == {
        "--tensor-type",
        "n_tokens",
        "GGML_ASSERT",
        "out of memory",
        r"(\S+)\s+(KV)\s+buffer size\s*=\s*([\d.]+)\s*MiB",
        r"^cuda_v(\d+)$",
    }
    assert {"-c", "-ngl", "GET /health", "POST /v1/completion", "n_predict", "LLAMA_ARG_FIT"} <= provided
    assert r"fit_impl:\s+-\s+(\d+)\s+overflowing" in provided, "a name that __func__ prints"
    assert r"offloaded\s+(\d+)/(\d+)\s+layers to GPU" in provided, "two literals, joined as the compiler does"


@pytest.mark.parametrize(
    ("source", "new"),
    [
        ("src/model.cpp", MODEL.replace("layers", "tensors")),
        ("src/model.cpp", MODEL.replace("%d/%d", "%d of %d")),
        ("src/model.cpp", MODEL.replace("LLAMA_LOG_INFO", "// LLAMA_LOG_INFO")),
    ],
)
def test_a_line_that_is_worded_anew_is_missing(programs: FolderTree, source: str, new: str) -> None:
    use = Use(kind="log", text=r"offloaded\s+(\d+)/(\d+)\s+layers to GPU", where="llm.go:1")
    assert server.provided([use], programs) == {use}
    (Path(programs.origin) / source).write_text(new)
    assert server.provided([use], programs) == frozenset()


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%s: %8.2f MiB", "w:     1.50 MiB"),
        ("%-4d|%3zu|%%|%c|0x%08lx", "1   |  1|%|c|0x      7f"),
        ("100%% of %lld", "100% of 1"),
    ],
)
def test_printed(form: str, text: str) -> None:
    assert server.printed(form, "w") == text
