"""The rules as llama-server reads and applies them, against toolchain.core.cachetypes.grammar."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cachetypes.test_grammar import CASES, sides
from toolchain.core.cachetypes.grammar import LayerTypes, parse
from toolchain.core.errors import ConfigError
from toolchain.series.manifest import OWN_SERIES
from toolchain.serving import cachelog

from .conftest import HERE
from .test_flash_attention import cxx_compiler

MINIATURE = HERE.parent / "upstream" / "llama.cpp"
Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "kv-layers"
    includes = [OWN_SERIES / "kernels", *(MINIATURE / name for name in ("include", "ggml/include", "src"))]
    strict = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GLIBCXX_ASSERTIONS"]
    sources = [OWN_SERIES / "kernels/llama-kv-layers.cpp", HERE / "kv_layers.cpp"]
    subprocess.run(
        [
            *cxx_compiler(),
            *strict,
            *(f"-I{path}" for path in includes),
            *map(str, sources),
            "-pthread",
            "-o",
            str(path),
        ],
        check=True,
    )
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers") / "log"


@pytest.fixture(scope="module")
def ask(program: Path, log: Path) -> Iterator[Ask]:
    """One running program: a line in, a line out; what it logs goes to `log`."""
    with (
        log.open("wb") as errors,
        subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as running,
    ):
        assert running.stdin
        assert running.stdout
        stdin, stdout = running.stdin, running.stdout

        def asked(line: str) -> str:
            stdin.write(line + "\n")
            stdin.flush()
            return stdout.readline().strip()

        yield asked
        stdin.close()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [(text, canonical) for kind, text, canonical in CASES if kind == "spec"],
)
def test_the_shared_table(ask: Ask, text: str, canonical: str) -> None:
    answer = ask(f"read {text}")
    if canonical == "-":
        assert answer.startswith(f"- cache type '{text}': '")
    else:
        assert answer == canonical


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(alphabet="tqf1682_0:,=-rsalye", min_size=1, max_size=30))
def test_any_text_is_read_as_the_toolkit_reads_it(ask: Ask, text: str) -> None:
    try:
        types = parse(text)
        wanted = str(types.k) if types.k == types.v and not set(types.names()) - KNOWN else "-"
    except ConfigError:
        wanted = "-"
    assert ask(f"read {text}").split(" ")[0] == ("-" if ":" in text.partition(",")[0] else wanted)


KNOWN = {"f32", "f16", "q8_0", "q4_0", "turbo4", "turbo3", "turbo2"}


def test_an_unknown_type_is_named_with_those_that_are_known(ask: Ask) -> None:
    answer = ask("read turbo2,first=2:turbo9")
    assert "'turbo9': no such type; known types are f32, f16, q8_0, q4_0, turbo4, turbo3, turbo2" in answer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(k=sides, v=sides, layers=st.integers(1, 70), caches=st.sampled_from(["one", "window", "even"]))
def test_every_layer_has_the_type_of_its_rules(
    ask: Ask, k: LayerTypes, v: LayerTypes, layers: int, caches: str
) -> None:
    answer = ask(f"layers {layers} {caches} {k} {v}")
    held = list(range(0, layers, 2)) if caches == "even" else list(range(layers))
    try:
        wanted = zip(k.each(len(held)), v.each(len(held)), strict=True)
    except ConfigError as error:
        (rule,) = {str(rule) for rule in (*k.rules, *v.rules) if error.message.startswith(f"{rule}: ")}
        assert f"cache type rule '{rule}': the model has {len(held)} attention layer" in answer
        return
    given_types = dict(word.split("=") for word in answer.split() if "=" in word)
    assert given_types == {str(il): "/".join(types) for il, types in zip(held, wanted, strict=True)}
    assert answer.endswith(" flash") == any(rule.type != "f16" for rule in v.rules)


def test_a_quantized_layer_decides_over_the_rotation(ask: Ask) -> None:
    answer = ask("layers 4 one f16,layers=1:turbo2 turbo4,first=4:f16")
    assert "K:f16+turbo2 V:f16 K>turbo2 V>f16" in answer


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("layers 4 twice q8_0 turbo2,first=1:q8_0", "layer 0 of the model has several caches"),
        ("layers 4 transposed f16 f16,last=1:turbo4", "layer 3 of the model cannot have V of turbo4 without flash"),
    ],
)
def test_what_cannot_work_is_refused(ask: Ask, line: str, reason: str) -> None:
    assert reason in ask(line)
    assert "several" not in ask(line.replace(",first=1:q8_0", "").replace(",last=1:turbo4", "")), "no rules, no limits"


def test_the_log_states_the_layers_of_each_type(ask: Ask, log: Path) -> None:
    """As toolchain.serving.cachelog reads them, over both caches of a model with a sliding window."""
    mark = log.stat().st_size
    ask("layers 9 window q8_0 turbo2,first=2:q8_0,last=2:q8_0,layers=4-5:f16")
    head = "llama_kv_cache: size = 1.00 MiB ( 256 cells, 5 layers, 1/1 seqs), K (q8_0): 1.00 MiB, V (x): 1.00 MiB\n"
    (cache,) = cachelog.stated(head + log.read_text()[mark:])
    parts = [(part.side, part.layers, part.type, part.mib) for part in cache.proof.parts]
    assert parts == [
        ("K", (0, 2, 4, 6, 8), "q8_0", 5.0),
        ("V", (0, 8), "q8_0", 2.0),
        ("V", (2, 6), "turbo2", 2.0),
        ("V", (4,), "f16", 1.0),
        ("K", (1, 3, 5, 7), "q8_0", 4.0),
        ("V", (1, 7), "q8_0", 2.0),
        ("V", (3,), "turbo2", 1.0),
        ("V", (5,), "f16", 1.0),
    ]
    assert {part.of for part in cache.proof.parts} == {9}
    assert cachelog.mismatch([cache.proof], "q8_0:turbo2,first=2:q8_0,last=2:q8_0,layers=4-5:f16", 9) == ""
