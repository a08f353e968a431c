"""Flash attention over the cache types against its definition in float64.

Keys that are decoded to integers are multiplied with queries rounded to int8, one scale for 64 values; the reference
rounds its queries in the same way, and a test of its own says what that costs.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolchain.series.manifest import OWN_SERIES, load
from toolchain.stages import CacheType

from .conftest import HERE, Floats, Kernels, compiler
from .test_variants import arm64_compiler

pytestmark = pytest.mark.slow

TYPES: dict[str, CacheType] = {kind.name: kind for kind in load().types}
NAMES = ["f32", *TYPES]


def variants() -> dict[str, list[str]]:
    """Compiler flags of the vector widths that this machine can run."""
    flags = {"portable": [], "native": ["-march=native"]}
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and cpuinfo.exists() and {"avx2", "fma"} <= set(cpuinfo.read_text().split()):
        flags["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    return flags


def cxx_compiler() -> list[str]:
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "c++"]


def compile_attention(output: Path, c: list[str], cxx: list[str], flags: list[str], link: list[str]) -> None:
    """Compile the kernels and the driver by the commands `c` and `cxx`, and link them to `output`."""
    sources = OWN_SERIES / "kernels"
    strict = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DGGML_TURBO_STANDALONE", f"-I{sources}"]
    objects = []
    for source in (sources / "ggml-turbo.c", sources / "ggml-cpu-turbo-fa.cpp", HERE / "attend.cpp"):
        command = c if source.suffix == ".c" else [*cxx, "-std=c++17"]
        objects.append(str(output.with_name(source.name + ".o")))
        subprocess.run([*command, *strict, *flags, "-c", str(source), "-o", objects[-1]], check=True)
    subprocess.run([*cxx, *objects, *link, "-pthread", "-o", str(output)], check=True)


@pytest.fixture(scope="module", params=sorted(variants()))
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("attention") / "attend.so"
    compile_attention(path, compiler(), cxx_compiler(), ["-fPIC", *variants()[request.param]], ["-shared"])
    return ctypes.CDLL(str(path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Queries are drawn for `heads` = kv_heads * group heads; the mask hides a third of the keys, or all of them."""

    key_size: int = 64
    value_size: int = 64
    n_q: int = 1
    n_kv: int = 100
    kv_heads: int = 2
    group: int = 2
    batches: int = 1
    share: int = 1  # batches of queries for each batch of keys
    keys: str = "turbo4"
    values: str = "turbo4"
    mask_heads: int = 0  # 0: no mask
    hidden: float = 0.3
    sinks: bool = False
    softcap: float = 0.0
    max_bias: float = 0.0
    threads: int = 1
    seed: int = 0

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group


class Operands:
    """The drawn operands of a case, and K and V as the cache keeps them."""

    def __init__(self, case: Case, kernels: Kernels) -> None:
        rng = np.random.default_rng(case.seed)
        self.case = case
        kv_batches = case.batches // case.share
        self.q = rng.standard_normal((case.batches, case.heads, case.n_q, case.key_size), dtype=np.float32)
        drawn = [
            rng.standard_normal((kv_batches, case.kv_heads, case.n_kv, size), dtype=np.float32)
            for size in (case.key_size, case.value_size)
        ]
        self.stored: list[npt.NDArray[Any]] = []
        self.decoded: list[Floats] = []
        for values, name in zip(drawn, (case.keys, case.values), strict=True):
            if name == "f32":
                self.stored.append(values)
                self.decoded.append(values)
            else:
                blocks = kernels.quantize(TYPES[name], values)
                self.stored.append(blocks)
                self.decoded.append(kernels.dequantize(TYPES[name], blocks).reshape(values.shape))
        self.mask: npt.NDArray[np.float16] | None = None
        if case.mask_heads:
            shape = (1, case.mask_heads, case.n_q, case.n_kv)
            bias = -rng.random(shape) if case.max_bias else np.zeros(shape)
            self.mask = np.where(rng.random(shape) < case.hidden, -np.inf, bias).astype(np.float16)
        self.sinks = rng.standard_normal(case.heads, dtype=np.float32) if case.sinks else None
        self.scale = np.float32(case.key_size**-0.5)

    def rounded_q(self) -> Floats:
        """Queries as int8 with a scale for every 64 values."""
        blocks = self.q.reshape(-1, 64)
        top = np.abs(blocks).max(axis=1, keepdims=True)
        return np.asarray(np.rint(blocks * (np.float32(127) / top)) * (top / np.float32(127))).reshape(self.q.shape)

    def reference(self, q: Floats) -> npt.NDArray[np.float64]:
        """softmax(scale q k^T + mask) v, in float64."""
        case, (k, v) = self.case, (array.astype(np.float64) for array in self.decoded)
        k, v = (np.repeat(np.repeat(array, case.share, axis=0), case.group, axis=1) for array in (k, v))
        scores = np.einsum("bhqd,bhkd->bhqk", q.astype(np.float64), k) * float(self.scale)
        if case.softcap:
            scores = case.softcap * np.tanh(scores / case.softcap)
        if self.mask is not None:
            power = 2 ** int(np.log2(case.heads))
            exponents = [
                (h + 1) / power if h < power else (2 * (h - power) + 1) / (2 * power) for h in range(case.heads)
            ]
            slopes = 2.0 ** (-case.max_bias * np.array(exponents)) if case.max_bias else np.ones(case.heads)
            masks = np.resize(self.mask.astype(np.float64), (1, case.heads, case.n_q, case.n_kv))
            with np.errstate(invalid="ignore"):
                scores = scores + slopes[None, :, None, None] * masks
        if self.sinks is not None:
            sink = np.broadcast_to(self.sinks.astype(np.float64)[None, :, None, None], (*scores.shape[:3], 1))
            scores = np.concatenate([scores, sink], axis=-1)
        top = scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        total = weights.sum(axis=-1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return np.asarray(np.einsum("bhqk,bhkd->bhqd", weights[..., : case.n_kv], v))

    def arguments(self) -> list[npt.NDArray[Any] | None]:
        """What the driver takes; the last one is where the result belongs."""
        case = self.case
        numbers = [case.key_size, case.value_size, case.n_q, case.n_kv, case.heads, case.kv_heads, case.batches]
        numbers += [case.batches // case.share, max(case.mask_heads, 1), 1]
        numbers += [NAMES.index(case.keys), NAMES.index(case.values), case.threads]
        parameters = np.array([self.scale, case.softcap, case.max_bias], dtype=np.float32)
        out = np.full((case.batches, case.heads, case.n_q, case.value_size), np.nan, dtype=np.float32)
        return [np.array(numbers, dtype=np.int64), parameters, self.q, *self.stored, self.mask, self.sinks, out]

    def computed(self, library: ctypes.CDLL) -> tuple[Floats, int]:
        """What the kernels make of it, and into how many parts they divided the keys."""
        arguments = self.arguments()
        library.attend.restype = ctypes.c_int64
        splits = library.attend(*(_pointer(array) for array in arguments))
        assert arguments[-1] is not None
        return arguments[-1], int(splits)

    def computed_by(self, command: list[str]) -> Floats:
        """The same by a program."""
        arguments = [b"" if array is None else np.ascontiguousarray(array).tobytes() for array in self.arguments()]
        stream = b"".join(len(data).to_bytes(8, "little") + data for data in arguments)
        done = subprocess.run(command, input=stream, stdout=subprocess.PIPE, check=True)
        shape = (self.case.batches, self.case.heads, self.case.n_q, self.case.value_size)
        return np.frombuffer(done.stdout, dtype=np.float32).reshape(shape)


def _pointer(array: npt.NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def worst(got: Floats, expected: npt.NDArray[np.float64]) -> float:
    """The largest error, relative to the root mean square of what is expected."""
    assert np.isfinite(got).all()
    return float(np.abs(got - expected).max() / max(np.sqrt(np.mean(expected**2)), 1e-3))


CASES = st.builds(
    Case,
    key_size=st.sampled_from([64, 128, 192]),
    value_size=st.sampled_from([64, 128, 192]),
    n_q=st.sampled_from([1, 2, 5, 33]),
    n_kv=st.sampled_from([1, 15, 63, 64, 65, 130, 600]),
    kv_heads=st.integers(1, 3),
    group=st.sampled_from([1, 2, 3, 8]),
    batches=st.sampled_from([2, 4]),
    share=st.sampled_from([1, 2]),
    keys=st.sampled_from(NAMES),
    values=st.sampled_from(NAMES),
    mask_heads=st.sampled_from([0, 1]),
    hidden=st.sampled_from([0.0, 0.3, 0.97]),
    sinks=st.booleans(),
    softcap=st.sampled_from([0.0, 5.0]),
    max_bias=st.sampled_from([0.0, 8.0]),
    threads=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=CASES)
def test_computes_attention_as_it_is_defined(case: Case, kernels: Kernels, library: ctypes.CDLL) -> None:
    operands = Operands(case, kernels)
    q = operands.q if case.keys == "f32" else operands.rounded_q()
    assert worst(operands.computed(library)[0], operands.reference(q)) < 1e-3


@pytest.mark.parametrize(("key_size", "value_size"), [(576, 512), (256, 256), (192, 128)])
def test_large_heads(key_size: int, value_size: int, kernels: Kernels, library: ctypes.CDLL) -> None:
    case = Case(key_size=key_size, value_size=value_size, kv_heads=1, group=16, n_q=5, mask_heads=1)
    operands = Operands(case, kernels)
    assert worst(operands.computed(library)[0], operands.reference(operands.rounded_q())) < 1e-3


@pytest.mark.parametrize("n_q", [1, 40])
def test_heads_with_masks_of_their_own(n_q: int, kernels: Kernels, library: ctypes.CDLL) -> None:
    operands = Operands(Case(n_q=n_q, mask_heads=4, max_bias=4.0), kernels)
    assert worst(operands.computed(library)[0], operands.reference(operands.rounded_q())) < 1e-3


def test_many_threads_divide_the_keys_of_one_head(kernels: Kernels, library: ctypes.CDLL) -> None:
    case = Case(kv_heads=1, n_kv=3000, threads=4, mask_heads=1, sinks=True)
    operands = Operands(case, kernels)
    got, splits = operands.computed(library)
    assert splits > 4
    assert worst(got, operands.reference(operands.rounded_q())) < 1e-3
    alone = Operands(dataclasses.replace(case, threads=1), kernels).computed(library)
    assert alone[1] == 1
    np.testing.assert_allclose(got, alone[0], rtol=1e-4, atol=1e-5)


def test_a_row_that_may_see_nothing_is_zero(kernels: Kernels, library: ctypes.CDLL) -> None:
    for n_q, threads in ((1, 1), (20, 1), (1, 8)):
        operands = Operands(Case(n_q=n_q, n_kv=2000, mask_heads=1, hidden=1.0, threads=threads), kernels)
        np.testing.assert_array_equal(operands.computed(library)[0], 0.0)


def test_queries_of_zero_see_all_keys_alike(kernels: Kernels, library: ctypes.CDLL) -> None:
    operands = Operands(Case(), kernels)
    operands.q[:] = 0.0
    mean = np.repeat(operands.decoded[1].mean(axis=2, keepdims=True), 2, axis=1)
    np.testing.assert_allclose(operands.computed(library)[0], mean, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e15])
def test_finite_operands_of_any_size_give_finite_results(scale: float, kernels: Kernels, library: ctypes.CDLL) -> None:
    operands = Operands(Case(n_q=3), kernels)
    operands.q *= np.float32(scale)
    assert np.isfinite(operands.computed(library)[0]).all()


def test_rounding_the_queries_costs_less_than_a_hundredth(kernels: Kernels, library: ctypes.CDLL) -> None:
    """Against queries as they are: a hundredth of the result at most, a fraction of what turbo4 itself costs."""
    operands = Operands(Case(key_size=128, value_size=128, n_q=8, n_kv=500), kernels)
    expected = operands.reference(operands.q)
    error = np.sqrt(np.mean((operands.computed(library)[0] - expected) ** 2) / np.mean(expected**2))
    assert error < 1e-2


@pytest.mark.parametrize("features", ["armv8-a", "armv8.2-a+dotprod"])
def test_neon_under_qemu(features: str, kernels: Kernels, tmp_path: Path) -> None:
    c, runner = arm64_compiler(), shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    cxx = [*c[:-3], "c++", *c[-2:]] if c and "ziglang" in c else ["aarch64-linux-gnu-g++"]
    if c is None or runner is None or shutil.which(cxx[0]) is None:
        pytest.skip("NEON is not tested here: it needs qemu-aarch64 and an arm64 compiler of C++, or zig")
    flag = f"-mcpu=generic+{'dotprod' if '+' in features else 'neon'}" if "ziglang" in c else f"-march={features}"
    compile_attention(tmp_path / "attend", c, cxx, [flag, "-DATTEND_PROGRAM"], ["-static"])
    for case in (
        Case(n_q=5, n_kv=200, mask_heads=1, sinks=True, key_size=128),
        Case(n_kv=70, keys="turbo2", values="f32", softcap=5.0, threads=2),
        Case(n_q=40, keys="f32", values="turbo3", max_bias=8.0, mask_heads=1),
    ):
        operands = Operands(case, kernels)
        q = operands.q if case.keys == "f32" else operands.rounded_q()
        got = operands.computed_by([runner, "-cpu", "max", str(tmp_path / "attend")])
        assert worst(got, operands.reference(q)) < 1e-3


INVARIANT = st.builds(
    Case,
    key_size=st.sampled_from([64, 128]),
    value_size=st.sampled_from([64, 128]),
    n_q=st.sampled_from([2, 7, 9, 33, 65]),
    n_kv=st.sampled_from([40, 130, 511, 513, 2100]),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 3, 8]),
    keys=st.sampled_from(NAMES),
    values=st.sampled_from(NAMES),
    mask_heads=st.just(1),
    hidden=st.sampled_from([0.3, 0.9]),
    sinks=st.booleans(),
    softcap=st.sampled_from([0.0, 5.0]),
    max_bias=st.sampled_from([0.0, 8.0]),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=INVARIANT)
def test_a_row_does_not_depend_on_the_others_or_the_threads(case: Case, kernels: Kernels, library: ctypes.CDLL) -> None:
    """Bit for bit: the query of one token alone, and with other numbers of threads, as in a batch."""
    together = Operands(case, kernels)
    expected = together.computed(library)[0]
    for threads in (1, 2, 8):
        together.case = dataclasses.replace(case, threads=threads)
        np.testing.assert_array_equal(together.computed(library)[0], expected)
        for row in (0, case.n_q - 1):
            alone = copy.copy(together)
            alone.case = dataclasses.replace(case, n_q=1, threads=threads)
            alone.q = together.q[:, :, row : row + 1].copy()
            assert together.mask is not None
            alone.mask = together.mask[:, :, row : row + 1].copy()
            np.testing.assert_array_equal(alone.computed(library)[0], expected[:, :, row : row + 1])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=INVARIANT.map(lambda case: dataclasses.replace(case, hidden=0.0)),
    n_kv=st.sampled_from([150, 511, 512, 513, 1100, 2060]),
    further=st.sampled_from([1, 63, 330, 1500]),
    window=st.sampled_from([0, 40, 700]),
    threads=st.sampled_from([1, 2, 8]),
)
def test_other_cells_between_those_of_a_sequence_change_nothing(
    case: Case, n_kv: int, further: int, window: int, threads: int, kernels: Kernels, library: ctypes.CDLL
) -> None:
    """The same keys in the same order in a cache whose further cells belong to other sequences, bit for bit."""
    case = dataclasses.replace(case, n_kv=n_kv)
    alone = Operands(case, kernels)
    among = Operands(dataclasses.replace(case, n_kv=n_kv + further, threads=threads), kernels)
    cells = np.sort(np.random.default_rng(case.seed).choice(n_kv + further, n_kv, replace=False))
    among.q, among.sinks = alone.q, alone.sinks
    for mine, all_cells in zip(alone.stored, among.stored, strict=True):
        all_cells.reshape(case.kv_heads, n_kv + further, -1)[:, cells] = mine.reshape(case.kv_heads, n_kv, -1)
    assert alone.mask is not None
    assert among.mask is not None
    tokens, places = np.arange(case.n_q)[:, None] + n_kv - case.n_q, np.arange(n_kv)[None]
    seen = (places <= tokens) & ((places > tokens - window) if window else True)
    alone.mask[:] = np.where(seen, -np.abs(alone.mask), -np.inf)
    among.mask[:] = -np.inf
    among.mask[..., cells] = alone.mask
    np.testing.assert_array_equal(among.computed(library)[0], alone.computed(library)[0])
