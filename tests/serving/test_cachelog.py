from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import UPSTREAM, bits_per_value, type_table
from toolchain.models.memory.kv import CacheSize, CacheSizes
from toolchain.serving import cachelog
from toolchain.serving.probe_model import ProbeGeometry
from toolchain.stages import CacheType
from toolchain.verify import planned

ADDED = (CacheType(name="turbo4", block=64, bytes=34), CacheType(name="turbo2", block=64, bytes=18))
TYPES = type_table(ADDED)
GEOMETRY = ProbeGeometry(head_size=64, heads=4, kv_heads=2, layers=8, context=512)

prefixes = st.sampled_from(["", "0.01.234.567 I ", "[1234] ", "time=now level=INFO msg=", "\x1b[0m"])
noise = st.lists(
    st.sampled_from(
        [
            "llama_kv_cache:        CPU KV buffer size =     1.06 MiB",
            "llama_context: n_ctx = 512",
            'starting llama-server cmd="--cache-type-k turbo4 --cache-type-v turbo4"',
            "",
            "graph_reserve: reserving a graph for ubatch with n_tokens = 512",
        ]
    )
    | st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=40),
    max_size=3,
)
geometries = st.builds(
    ProbeGeometry,
    head_size=st.sampled_from([64, 128, 256]),
    heads=st.just(8),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    layers=st.integers(1, 80),
    context=st.just(131072),
)


def f32(value: float) -> float:
    """As llama.cpp computes sizes: in single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def cache_line(
    geometry: ProbeGeometry, cells: int, type_k: str, type_v: str, *, layers: int = 0, extra_k: float = 0
) -> str:
    """The line that llama-server prints, sizes in MiB and `extra_k` MiB too many."""
    layers = layers or geometry.layers
    k, v = (
        cells * layers * geometry.kv_heads * geometry.head_size * TYPES[kind].bytes / TYPES[kind].block
        for kind in (type_k, type_v)
    )
    k += extra_k * 2**20
    mib, mib_k, mib_v = (f32(size) / 2**20 for size in (k + v, k, v))
    return (
        f"llama_kv_cache: size = {mib:7.2f} MiB ({cells:6d} cells, {layers:3d} layers, {1:2d}/{1} seqs), "
        f"K ({type_k}): {mib_k:7.2f} MiB, V ({type_v}): {mib_v:7.2f} MiB"
    )


ROTATED = "\n".join(f"llama_kv_cache: attn_rot_{side} = 1, n_embd_head_k_all = 64" for side in "kv")


@given(
    geometry=geometries,
    padded=st.integers(1, 1024),
    type_k=st.sampled_from(sorted(TYPES)),
    type_v=st.sampled_from(sorted(TYPES)),
    prefix=prefixes,
    before=noise,
    between=noise,
)
def test_every_honest_log_is_accepted(
    geometry: ProbeGeometry, padded: int, type_k: str, type_v: str, prefix: str, before: list[str], between: list[str]
) -> None:
    cells = padded * 256
    line = cache_line(geometry, cells, type_k, type_v)
    log = "\n".join([*before, prefix + line, *between, ROTATED])
    (found,) = cachelog.caches(log, geometry, ADDED)
    assert found.proof.line == line
    assert (found.proof.type_k, found.proof.type_v) == (type_k, type_v)
    assert (found.proof.cells, found.proof.layers) == (cells, geometry.layers)
    bits = TYPES[type_k].bytes * 8 / TYPES[type_k].block + TYPES[type_v].bytes * 8 / TYPES[type_v].block
    assert found.proof.expected_bytes * 8 == bits * cells * geometry.layers * geometry.kv_width
    assert (found.rotated_k, found.rotated_v) == (True, True)
    asked = type_k if type_k == type_v else f"{type_k}:{type_v}"
    assert cachelog.complaint([found], asked, geometry, cells - 255, ADDED) == ""
    assert cachelog.complaint([found], asked, geometry, cells, ADDED) == ""


@given(
    geometry=geometries,
    asked=st.sampled_from(sorted(TYPES)),
    stated=st.sampled_from(sorted(TYPES)),
    extra=st.floats(0.011, 100) | st.floats(-100, -0.011),
)
def test_a_wrong_type_or_size_is_refused(geometry: ProbeGeometry, asked: str, stated: str, extra: float) -> None:
    def complaint(line: str) -> str:
        return cachelog.complaint(cachelog.caches(f"{line}\n{ROTATED}", geometry, ADDED), asked, geometry, 512, ADDED)

    if asked != stated:
        assert f"K {asked}" in complaint(cache_line(geometry, 512, stated, asked))
        assert f"V {stated}" in complaint(cache_line(geometry, 512, asked, stated))
    line = cache_line(geometry, 512, asked, asked, extra_k=extra)
    if "-" in line.partition("MiB")[2]:  # no log states a negative size
        assert complaint(line) == "the log states no KV cache"
    else:
        assert "MiB, the log says" in complaint(line)


def layer_lines(geometry: ProbeGeometry, cells: int, side: str, types: Sequence[str]) -> list[str]:
    """What llama-server adds where there are rules: the layers of each type."""
    lines = []
    for name in dict.fromkeys(types):
        layers = [layer for layer, kind in enumerate(types) if kind == name]
        mib = cachelog.cache_bytes(TYPES[name], geometry, cells=cells, layers=len(layers)) / 2**20
        numbers = ",".join(map(str, layers))
        lines.append(f"llama_kv_cache: {side} of attention layers {numbers} (of {len(types)}): {name}, {mib:.2f} MiB")
    return lines


@given(
    types_k=st.lists(st.sampled_from(sorted(TYPES)), min_size=2, max_size=20),
    base=st.sampled_from(sorted(TYPES)),
    wrong=st.integers(0, 19),
    cells=st.integers(1, 64).map(lambda n: n * 256),
)
def test_the_type_of_every_single_layer_counts(types_k: list[str], base: str, wrong: int, cells: int) -> None:
    geometry = dataclasses.replace(GEOMETRY, layers=len(types_k))
    rules = "".join(f",layers={layer}:{kind}" for layer, kind in enumerate(types_k))
    sizes = [
        sum(cachelog.cache_bytes(TYPES[kind], geometry, cells=cells, layers=1) for kind in types)
        for types in (types_k, [base] * len(types_k))
    ]
    mib, mib_k, mib_v = (f32(size) / 2**20 for size in (sum(sizes), *sizes))
    head = (
        f"llama_kv_cache: size = {mib:7.2f} MiB ({cells:6d} cells, {len(types_k):3d} layers,  1/1 seqs), "
        f"K ({'+'.join(dict.fromkeys(types_k))}): {mib_k:7.2f} MiB, V ({base}): {mib_v:7.2f} MiB"
    )
    lines = layer_lines(geometry, cells, "K", types_k) + layer_lines(geometry, cells, "V", [base] * len(types_k))

    def complaint(asked: str, stated: list[str]) -> str:
        found = cachelog.caches("\n".join([head, *stated, ROTATED]), geometry, ADDED)
        return cachelog.complaint(found, asked, geometry, cells, ADDED)

    asked = f"f16{rules}:{base}"
    assert complaint(asked, lines) == ""
    layer = wrong % len(types_k)
    other = next(kind for kind in sorted(TYPES) if kind != types_k[layer])
    assert f"K of attention layer {layer} as {other}" in complaint(f"f16{rules},layers={layer}:{other}:{base}", lines)
    assert "the log states the layers" in complaint(asked, lines[1:])
    grown = [re.sub(r"(\d+\.\d+) MiB$", lambda size: f"{float(size[1]) + 0.02:.2f} MiB", lines[0]), *lines[1:]]
    assert "MiB, the log says" in complaint(asked, grown)


@given(
    first=st.sampled_from(sorted(TYPES)),
    second=st.sampled_from(sorted(TYPES)),
)
def test_a_size_that_belongs_to_another_type_is_refused(first: str, second: str) -> None:
    """The name of one type over the tensors of another, for all types that cost something else."""
    assume(bits_per_value(TYPES[first]) != bits_per_value(TYPES[second]))
    line = cache_line(GEOMETRY, 512, first, first).replace(f"({first})", f"({second})")
    found = cachelog.caches(f"{line}\n{ROTATED}", GEOMETRY, ADDED)
    assert "MiB, the log says" in cachelog.complaint(found, second, GEOMETRY, 512, ADDED)


@given(st.text())
def test_any_text_is_read_without_a_crash(text: str) -> None:
    assert cachelog.caches(text, GEOMETRY, ADDED) == ()
    assert cachelog.context_shifts(text) == 0


def test_sliding_windows_are_counted_together() -> None:
    log = "\n".join(
        [
            cache_line(GEOMETRY, 512, "turbo4", "turbo4", layers=2),
            ROTATED,
            cache_line(GEOMETRY, 512, "turbo4", "turbo4", layers=6),
            ROTATED,
        ]
    )
    found = cachelog.caches(log, GEOMETRY, ADDED)
    assert [cache.proof.layers for cache in found] == [2, 6]
    assert cachelog.complaint(found, "turbo4", GEOMETRY, 512, ADDED) == ""
    assert "2 layers" in cachelog.complaint(found[:1], "turbo4", GEOMETRY, 512, ADDED)
    odd = (found[0], dataclasses.replace(found[1], rotated_v=False))
    assert "V is turbo4" in cachelog.complaint(odd, "turbo4", GEOMETRY, 512, ADDED)


def test_a_type_of_ours_must_be_rotated_and_others_need_not() -> None:
    log = cache_line(GEOMETRY, 512, "q8_0", "turbo4")
    unsaid = cachelog.caches(log, GEOMETRY, ADDED)
    assert unsaid[0].rotated_v is None
    assert "V is turbo4" in cachelog.complaint(unsaid, "q8_0:turbo4", GEOMETRY, 512, ADDED)
    off = ROTATED.replace("= 1,", "= 0,")
    assert "V is turbo4" in cachelog.complaint(
        cachelog.caches(f"{log}\n{off}", GEOMETRY, ADDED), "q8_0:turbo4", GEOMETRY, 512, ADDED
    )
    plain = cachelog.caches(cache_line(GEOMETRY, 512, "q8_0", "q8_0"), GEOMETRY, ADDED)
    assert cachelog.complaint(plain, "q8_0", GEOMETRY, 512, ADDED) == ""


@pytest.mark.parametrize(("cells", "good"), [(256, False), (512, True), (768, False)])
def test_cells(cells: int, good: bool) -> None:
    found = cachelog.caches(cache_line(GEOMETRY, cells, "q8_0", "q8_0"), GEOMETRY, ADDED)
    assert (cachelog.complaint(found, "q8_0", GEOMETRY, 512, ADDED) == "") is good


def test_a_type_that_nobody_lists() -> None:
    line = cache_line(GEOMETRY, 512, "q8_0", "q8_0").replace("q8_0", "q3_x")
    found = cachelog.caches(line, GEOMETRY, ADDED)
    assert found[0].proof.expected_bytes == 0
    assert "q3_x is not known" in cachelog.complaint(found, "q3_x", GEOMETRY, 512, ADDED)


def test_the_planner_s_figures() -> None:
    sizes = ((512, 2), (256, 6))
    log = "\n".join(cache_line(GEOMETRY, cells, "q8_0", "turbo4", layers=layers) for cells, layers in sizes)
    found = cachelog.caches(log, GEOMETRY, ADDED)
    row = {kind: TYPES[kind].bytes * GEOMETRY.kv_width // TYPES[kind].block for kind in ("q8_0", "turbo4")}
    full, window = (
        CacheSize(
            name=name,
            cells=cells,
            streams=1,
            layers=layers,
            k=row["q8_0"] * cells * layers,
            v=row["turbo4"] * cells * layers,
        )
        for name, cells, layers in (("full", 512, 2), ("window", 256, 6))
    )
    assert planned.complaint(found, CacheSizes(caches=(full, window), state=0)) == ""
    assert "(512, 2)" in planned.complaint(found, CacheSizes(caches=(full,), state=0))
    odd = dataclasses.replace(window, v=window.v + 20_000)
    assert "the planner gives V" in planned.complaint(found, CacheSizes(caches=(full, odd), state=0))


def test_no_cache() -> None:
    assert cachelog.complaint((), "q8_0", GEOMETRY, 512, ADDED) == "the log states no KV cache"


@given(shifts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9**6), st.integers(0, 9**6)), max_size=5))
def test_context_shifts_that_discard_something_count(shifts: list[tuple[int, int, int]]) -> None:
    log = "\n".join(
        f"slot   operator(): id  0 | task 22 | slot context shift, n_keep = {k}, n_left = {left}, n_discard = {d}"
        for k, left, d in shifts
    )
    assert cachelog.context_shifts(log) == sum(d > 0 for _, _, d in shifts)
    older = "\n".join(
        f'level=DEBUG msg="context limit hit - shifting" id=0 limit=256 input={left} keep={k} discard={d}'
        for k, left, d in shifts
    )
    assert cachelog.context_shifts(older) == sum(d > 0 for _, _, d in shifts)


def test_upstream_bits_per_value() -> None:
    bits = {kind.name: bits_per_value(kind) for kind in UPSTREAM}
    assert bits == {
        "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5, "iq4_nl": 4.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "version"),
    [
        ("0.00.1 I cmn  print_info: build 10900 (9d77fa172) with GCC for x86_64", "llama.cpp 10900"),
        ("build_info: b10900-9d77fa172", "llama.cpp b10900-9d77fa172"),
        ("version: v0.4.1", "llama.cpp v0.4.1"),
        ("a line", "a llama.cpp that does not name its build"),
    ],
)
def test_a_line_that_another_version_words_anew(first: str, version: str) -> None:
    line = "llama_kv_cache: allocated 12.00 MiB for 256 cells in 4 layers: K=turbo4 (6.00 MiB) V=turbo4 (6.00 MiB)"
    log = f"{first}\nllama_kv_cache:   CPU KV buffer size =  12.00 MiB\n{line}\n{'x' * 5000} kv cache 1 MiB\n"
    assert cachelog.stated(log) == ()
    assert cachelog.unstated(log) == (
        "the log states no KV cache in the words of llama.cpp b10488, which are read here; "
        f"it is of {version} and says: {line}"
    )
    shifted = cachelog.unshifted(f"{first}\nslot 0: shifted the context by 128 tokens\n")
    assert "no context shift in the words of llama.cpp b10488" in shifted
    assert shifted.endswith(f"of {version} and says: slot 0: shifted the context by 128 tokens")


def test_a_log_that_says_nothing_of_it() -> None:
    log = "build 10900 (abc) with GCC\nllama_kv_cache:   CPU KV buffer size =  12.00 MiB\nprompt cache is enabled\n"
    assert cachelog.unstated(log) == "the log states no KV cache"
    assert cachelog.unshifted(log) == "the log states no context shift"


@pytest.mark.parametrize(
    ("types", "line", "named", "complains"),
    [
        ("turbo4", "", "/folder", True),
        ("turbo4", "", "", False),
        ("turbo4", "make: calibration of keys is on: 2 layers, 1.0 KiB\n", "/folder", False),
        ("turbo4", "make: calibration of keys is off: there is no file\n", "/folder", False),
        ("f16:turbo4", "", "/folder", False),
    ],
)
def test_a_release_that_knows_no_calibration(types: str, line: str, named: str, complains: bool) -> None:
    asked = parse(types)
    log = (
        f"llama_kv_cache: size =    2.00 MiB (   256 cells,   2 layers,  1/1 seqs), "
        f"K ({asked.k}):    1.00 MiB, V ({asked.v}):    1.00 MiB\n{line}"
    )
    said = cachelog.uncalibrated(log, {cachelog.CALIBRATION: named})
    assert ("the release is too old for one" in said) == complains == bool(said)
