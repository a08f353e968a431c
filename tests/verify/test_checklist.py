"""The checklist on the patched miniature, as it is and broken on purpose: every verdict has to see what it is for."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared import Miniatures
from toolchain import pipeline
from toolchain.core import records
from toolchain.core.errors import VerificationFailed
from toolchain.core.process import run as run_program
from toolchain.proofs import Verdict
from toolchain.series import manifest
from toolchain.serving.probe_model import write_probe
from toolchain.sources import create
from toolchain.stages import CacheType, Release
from toolchain.verify import checklist, evidence
from toolchain.verify.checklist import Examined
from toolchain.verify.evidence import GraphEvidence
from toolchain.verify.probed import DeviceTransform, OperationEvidence, Probed

from .conftest import MakeRelease

pytestmark = pytest.mark.slow

TYPES = manifest.load().types
NAMES = [kind.name for kind in TYPES]
HEAD_SIZE = 128
TOOLS = Path(sys.executable).parent
BOOKS, CODEC, ENCODER, KERNELS, CPU, CPU_ENCODER = (
    f"ggml/src/{name}"
    for name in (
        "ggml-turbo-types.h",
        "ggml-turbo-codec.h",
        "ggml-turbo-encode.h",
        "ggml-turbo.c",
        "ggml-cpu/ggml-cpu-turbo.c",
        "ggml-cpu/ggml-cpu-turbo-encode.cpp",
    )
)
CACHE = "src/llama-kv-cache.cpp"

# Half the vectors of a random orthonormal basis are negated, the others stay: orthogonal, its own inverse, and dense.
DENSE = """
static void hadamard(std::vector<float> & x, int64_t n) {
    static std::map<int64_t, std::vector<std::vector<double>>> negated;
    uint32_t seed = 1;
    while (n > 0 && (int64_t) negated[n].size() < n / 2) {
        std::vector<double> axis(n);
        for (double & value : axis) {
            value = (double) (seed = seed * 1664525u + 1013904223u) / 4294967296.0 - 0.5;
        }
        for (const auto & other : negated[n]) {
            const double dot = std::inner_product(axis.begin(), axis.end(), other.begin(), 0.0);
            std::transform(axis.begin(), axis.end(), other.begin(), axis.begin(),
                           [=](double a, double b) { return a - dot * b; });
        }
        const double norm = sqrt(std::inner_product(axis.begin(), axis.end(), axis.begin(), 0.0));
        std::for_each(axis.begin(), axis.end(), [=](double & value) { value /= norm; });
        negated[n].push_back(axis);
    }
    for (size_t start = 0; n > 0 && start < x.size(); start += n) {
        for (const auto & axis : negated[n]) {
            const double dot = std::inner_product(axis.begin(), axis.end(), &x[start], 0.0);
            for (int64_t i = 0; i < n; i++) {
                x[start + i] -= (float) (2.0 * dot * axis[i]);
            }
        }
    }
}

[[maybe_unused]] static void unused(std::vector<float> & x, int64_t n) {"""


class Tree:
    """The patched llama.cpp of the miniature, and a build of it that one changed file makes anew in a second or two."""

    def __init__(self, folder: Path, miniatures: Miniatures) -> None:
        run = miniatures.run(folder, miniatures.plain(folder))
        sources = pipeline.prepare(run)
        made = create(sources, pipeline.render_series(run, sources), folder / "scratch", run.console)
        self.source = made.llama_cpp
        self.release = folder / "release"
        (self.release / "lib").mkdir(parents=True)
        self._build = folder / "build"
        (self.release / "lib" / "ollama").symlink_to(self._build / "bin")
        settings = {
            "CMAKE_MAKE_PROGRAM": TOOLS / "ninja",
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_C_FLAGS_RELEASE": "-O1",
            "CMAKE_CXX_FLAGS_RELEASE": "-O1",
            "BUILD_SHARED_LIBS": "OFF",
            "OLLAMA_LLAMA_CPP_SKIP_COMPAT_PATCH": "ON",
            "FETCHCONTENT_SOURCE_DIR_LLAMA_CPP": self.source,
        }
        words = [f"-D{name}={value}" for name, value in settings.items()]
        server = made.ollama / "llama" / "server"
        run_program([TOOLS / "cmake", "-G", "Ninja", "-S", server, "-B", self._build, *words])
        self.build()

    def build(self) -> None:
        run_program([TOOLS / "cmake", "--build", self._build, "--target", "turbo-probe", "llama-server"])

    @contextlib.contextmanager
    def changed(self, file: str, changes: Mapping[str, str]) -> Iterator[None]:
        """Built with each anchor replaced, which must stand once in `file`; the file is as before afterwards."""
        path = self.source / file
        pristine = text = path.read_text()
        for anchor, replacement in changes.items():
            assert text.count(anchor) == 1, f"{anchor!r} stands {text.count(anchor)} times in {file}"
            text = text.replace(anchor, replacement)
        path.write_text(text)
        try:
            self.build()
            yield
        finally:
            path.write_text(pristine)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"), miniatures)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "probe.gguf"
    write_probe(path, head_size=HEAD_SIZE, heads=4, kv_heads=2, layers=2, context=256, seed=9)
    return path


@pytest.fixture(scope="module")
def probed(tree: Tree) -> Probed:
    return evidence.probe(tree.release, NAMES)


@pytest.fixture(scope="module")
def graph(tree: Tree, model: Path) -> GraphEvidence:
    return _graph(tree, model)


@pytest.fixture(scope="module", autouse=True)
def _measured_first(probed: Probed, graph: GraphEvidence) -> None:
    """A changed tree is built anew by the next change alone, so the series itself is measured before any."""


def _graph(tree: Tree, model: Path) -> GraphEvidence:
    return evidence.examine_graph(tree.release, model, HEAD_SIZE, "turbo4", folder=model.parent, timeout_s=30)


def _judge(probed: Probed, graph: GraphEvidence, kinds: tuple[CacheType, ...] = TYPES) -> tuple[Verdict, ...]:
    return checklist.judge(Examined(probed=probed, graph=graph, kinds=kinds))


def _failed(verdicts: tuple[Verdict, ...]) -> set[int]:
    assert [verdict.number for verdict in verdicts] == [1, 2, 3, 4, 5, 6]
    return {verdict.number for verdict in verdicts if not verdict.ok}


def test_the_series_passes(probed: Probed, graph: GraphEvidence) -> None:
    verdicts = _judge(probed, graph, TYPES)
    assert not _failed(verdicts), verdicts
    assert all(verdict.evidence for verdict in verdicts)
    assert [rotation.n for rotation in graph.rotations] == [128, 64]
    for kind in TYPES:
        assert all(kind.name in verdict.evidence for verdict in verdicts[2:])


BROKEN_KERNELS: dict[str, tuple[str, dict[str, str], set[int]]] = {
    "uniform codebook": (
        BOOKS,
        {"TURBO2_LEVELS  TURBO_8(9, 28, 52, 94)": "TURBO2_LEVELS  TURBO_8(13, 40, 67, 94)"},
        {3},
    ),
    "second codebook not decoded": (CODEC, {"return radius >> 15;": "return (void) radius, 0;"}, {3, 4}),
    "radius of 8 bits": (ENCODER, {"return (uint16_t) (near < 0": "return 0xff1f & (uint16_t) (near < 0"}, {3, 4}),
    "start of the path not decoded": (
        CODEC,
        {"return (uint64_t) (radius & (TURBO_STARTS - 1)) << 1;": "return (void) radius, 0;"},
        {3, 4},
    ),
    "bits swapped between the quantizer and all decoders": (
        ENCODER,
        {
            "(high[16 + i] >> bit & 3) << 2 | (high[32 + i] >> bit & 3) << 4": "(high[16 + i] >> bit & 3) << 4 | "
            "(high[32 + i] >> bit & 3) << 2"
        },
        {3, 4},
    ),
    "nibbles swapped on one path": (
        CPU_ENCODER,
        {
            "count, to + i * bytes);": "count, to + i * bytes);"
            "uint8_t & raw = to[i * bytes + 10]; raw = (uint8_t) (raw << 4 | raw >> 4);",
            # what serves a CPU without the vector instructions
            "ggml_##id##_quantize_row(x, y, k);": "ggml_##id##_quantize_row(x, y, k);"
            "uint8_t & raw = ((uint8_t *) y)[10]; raw = (uint8_t) (raw << 4 | raw >> 4);",
        },
        {6},
    ),
    "wrong sign in the dot product": (
        CPU,
        {"DECODE(id, RAW, &x[i]), y, low, high);": "DECODE(id, RAW, &x[i]), y, low, -high);"},
        {6},
    ),
    "a scale outside of the block": (
        KERNELS,
        {
            "void ggml_##id##_quantize_row(const float * x, void * y, int64_t k) {": "static float hidden_##id = 1.0f; "
            "void ggml_##id##_quantize_row(const float * x, void * y, int64_t k) { "
            "hidden_##id = x[0] < -100.0f || x[0] > 100.0f ? 2.0f : 1.0f;",
            "ggml_##id##_levels_row(b, level, &scale, QK_TURBO);": "ggml_##id##_levels_row(b, level, &scale, 64);"
            "scale *= hidden_##id;",
        },
        {5},
    ),
}
BROKEN_ROTATIONS: dict[str, tuple[dict[str, str], set[int]]] = {
    "dense": (
        {
            "\nstatic void hadamard(std::vector<float> & x, int64_t n) {": DENSE,
            "#include <cmath>\n": "#include <algorithm>\n#include <cmath>\n#include <map>\n#include <numeric>\n",
        },
        {1},
    ),
    "wrong sign": (
        {
            "    hadamard(out, rot_v);\n    return out;": "    hadamard(out, rot_v);\n"
            "    for (float & x : out) {\n        x = rot_v ? -x : x;\n    }\n    return out;"
        },
        {2},
    ),
    "query not rotated": ({"    hadamard(q, rot_k);\n": ""}, {2}),
    "values not rotated": ({"    hadamard(vx, rot_v);\n": ""}, {1, 2}),
}  # fmt: skip


@pytest.mark.usefixtures("probed", "graph")  # of the tree before it is broken
@pytest.mark.parametrize(("file", "changes", "failed"), BROKEN_KERNELS.values(), ids=BROKEN_KERNELS.keys())
def test_broken_kernels(tree: Tree, graph: GraphEvidence, file: str, changes: dict[str, str], failed: set[int]) -> None:
    with tree.changed(file, changes):
        verdicts = _judge(evidence.probe(tree.release, NAMES), graph, TYPES)
    assert _failed(verdicts) == failed, verdicts


@pytest.mark.usefixtures("probed", "graph")  # of the tree before it is broken
@pytest.mark.parametrize(("changes", "failed"), BROKEN_ROTATIONS.values(), ids=BROKEN_ROTATIONS.keys())
def test_a_broken_rotation(tree: Tree, model: Path, probed: Probed, changes: dict[str, str], failed: set[int]) -> None:
    with tree.changed(CACHE, changes):
        verdicts = _judge(probed, _graph(tree, model), TYPES)
    assert _failed(verdicts) == failed, verdicts


def test_what_another_device_may_do(probed: Probed, graph: GraphEvidence) -> None:
    """A radius of its own if that is as good, and rounding in products; but it decodes to the bit, or takes no type."""
    (cpu,) = probed.devices

    def failed(cpu_too: bool = True, **changes: Any) -> set[int]:
        def altered(one: OperationEvidence) -> OperationEvidence:
            return replace(one, **changes.get(one.op, {}))

        kinds = tuple(replace(kind, operations=tuple(map(altered, kind.operations))) for kind in cpu.types)
        other = replace(cpu, name="GPU", cpu=False, types=kinds)
        devices = (cpu, other) if cpu_too else (other,)
        return _failed(_judge(replace(probed, devices=devices), graph, TYPES))

    stored = next(one for one in cpu.types[0].operations if one.op == "SET_ROWS")
    assert failed() == set()
    assert failed(SET_ROWS={"differs": 9}) == set()
    assert failed(SET_ROWS={"differs": 9, "error": stored.reference * 9}) == {6}
    assert failed(GET_ROWS={"differs": 1}) == {6}
    assert failed(MUL_MAT={"error": 0.01}) == set()
    assert failed(MUL_MAT={"error": 0.1}) == {6}
    assert failed(GET_ROWS={"of": 0}) == set()
    assert failed(cpu_too=False, GET_ROWS={"of": 0}) == {6}


@pytest.mark.parametrize(
    ("entries", "twice", "failed"), [(1e-6, 1e-6, set()), (0.5, 1e-6, {1}), (1e-6, 2.0, {2}), (math.nan, 1e-6, {1})]
)
def test_a_devices_own_transform(
    probed: Probed, graph: GraphEvidence, entries: float, twice: float, failed: set[int]
) -> None:
    done = DeviceTransform(n=64, done=True, entries=entries, skew=1e-6, twice=twice)
    missing = DeviceTransform(n=128, done=False, entries=0, skew=9, twice=9)
    device = replace(probed.devices[0], rotations=(done, missing))
    assert _failed(_judge(replace(probed, devices=(device,)), graph, TYPES)) == failed


@pytest.mark.parametrize(
    ("which", "changes", "failed"),
    [
        (0, {"cost": 0.02}, {4}),
        (1, {"cost": 0.2}, set()),
        (1, {"off": 0.02}, {4}),
        (0, {"inexact": 1}, {4, 5}),
        (1, {"inexact": 1}, {4, 5}),
        (1, {"fraction": 0.01}, {5}),
        (1, {"blocks": 0, "levels": (), "snr_db": 0.0}, {3}),
    ],
)
def test_each_codebook_counts(
    probed: Probed, graph: GraphEvidence, which: int, changes: dict[str, Any], failed: set[int]
) -> None:
    first, second = probed.types[1].codebooks
    books = (replace(first, **changes), second) if which == 0 else (first, replace(second, **changes))
    types = (probed.types[0], replace(probed.types[1], codebooks=books), probed.types[2])
    assert _failed(_judge(replace(probed, types=types), graph, TYPES)) == failed


def test_only_the_lowest_bits_of_the_radius_may_do_something_else(probed: Probed, graph: GraphEvidence) -> None:
    for shared, failed in (((9,) * 4 + (0,) * 6, set()), ((0,) * 10, set()), ((0,) * 4 + (1,) + (0,) * 5, {4})):
        types = (replace(probed.types[0], shared=shared), *probed.types[1:])
        assert _failed(_judge(replace(probed, types=types), graph, TYPES)) == failed


def test_a_radius_may_cost_a_fixed_share_of_the_energy(probed: Probed, graph: GraphEvidence) -> None:
    found = probed.types[0]
    first, second = found.codebooks
    for share, failed in ((2**-16.2, set()), (2**-15.8, {4})):
        books = (replace(first, cost=share * 10 ** (first.snr_db / 10)), second)
        types = (replace(found, codebooks=books), *probed.types[1:])
        assert _failed(_judge(replace(probed, types=types), graph, TYPES)) == failed


def test_a_type_of_another_size(probed: Probed, graph: GraphEvidence) -> None:
    kinds = (replace(TYPES[0], bytes=TYPES[0].bytes - 2), *TYPES[1:])
    assert _failed(_judge(probed, graph, kinds)) == {5}


def test_a_release_without_evidence(tmp_path: Path, make_release: MakeRelease, model: Path) -> None:
    folder = make_release()
    stated = records.read(folder / "manifest.json", Release)

    def verdicts(release: Release = stated) -> tuple[Verdict, ...]:
        found = checklist.examine(folder, release, model, HEAD_SIZE, folder=tmp_path, timeout_s=5)
        return checklist.judge(found) if found else ()

    assert verdicts(replace(stated, cache_types=())) == ()
    found = verdicts()
    assert _failed(found) == {1, 2, 3, 4, 5, 6}
    assert all("llama-server: no such program" in verdict.evidence for verdict in found[:2])
    assert all("turbo-probe: no such program" in verdict.evidence for verdict in found[2:])
    program = folder / evidence.PROBE_PATH
    program.parent.mkdir(parents=True)
    for script, words in (
        ("echo no JSON", "unexpected output"),
        ("echo broken >&2; exit 3", "ended with 3: broken"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert all(words in verdict.evidence for verdict in verdicts()[2:])


def test_a_type_that_the_libraries_lack(tree: Tree) -> None:
    with pytest.raises(VerificationFailed, match=r"ended with 2: .*no type turbo9"):
        evidence.probe(tree.release, ["turbo4", "turbo9"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.integers(4, 7), noise=st.floats(0, 0.2), signed=st.booleans())
def test_a_fit_finds_the_transform(seed: int, shift: int, noise: float, signed: bool) -> None:
    """Whatever the size, with signs of rows and columns at will, and with the noise of a quantizer."""
    rng, n, size = np.random.default_rng(seed), 1 << shift, 128
    signs = np.ones((1, 1))
    for _ in range(shift):
        signs = np.block([[signs, signs], [signs, -signs]])
    if signed:
        signs = signs * rng.choice([-1, 1], n) * rng.choice([-1, 1], (n, 1))
    matrix = np.kron(np.eye(size // n), signs / np.sqrt(n))
    plain = rng.standard_normal((600, size)).astype(np.float32)
    cached = (plain @ matrix.T + noise * rng.standard_normal((600, size))).astype(np.float32)
    found = evidence.describe("V", evidence.fit(plain, cached))
    assert (found.n, found.signs) == (n, 0)
    assert found.deviation < 0.02 + noise
    np.testing.assert_allclose(evidence.nearest(evidence.fit(plain, cached)), matrix, atol=1e-12)


def test_a_verdict_without_facts_fails() -> None:
    verdict = checklist._verdict(1, "a name", [])
    assert (verdict.ok, verdict.evidence) == (False, "no evidence")
