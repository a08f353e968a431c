"""What a release without llama-server shows: the tests of Ollama's engine in its tree, run by the real go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.gitrepo import git
from toolchain.build import steps, tools
from toolchain.core import config
from toolchain.core.errors import DirtyScratch, RecordError, VerificationFailed
from toolchain.proofs import TypeProof, Verdict
from toolchain.sources import eras
from toolchain.sources.scratch import require_unchanged
from toolchain.verify import checklist, engines, gpu
from toolchain.verify.checklist import Examined, Unasked
from toolchain.verify.engines import EngineTest

from .conftest import TURBO4, MakeRelease, stated

TESTS = """package nn

import "testing"

func TestTurboQuantRotation(t *testing.T) { %s }

func TestTurboQuantAttention(t *testing.T) {
	t.Logf("head 128, turbo4, plain: %%.3f", 0.089)
	t.Logf("head 64, turbo4, plain: 0.1")
	%s
}
"""
MAC = replace(stated("release", (TURBO4,)), platform="macos-arm64", era="vendored", flags={"preset": ""})


def _plan(folder: Path, rotation: str = "", attention: str = "") -> steps.BuildPlan:
    """A tree with one package, and all that go needs of a plan."""
    place = folder / "ollama" / engines.PACKAGE
    place.mkdir(parents=True)
    (folder / "ollama" / "go.mod").write_text("module example.com/m\n\ngo 1.24\n")
    (place / "nn.go").write_text("package nn\n")
    (place / "nn_test.go").write_text(TESTS % (rotation, attention))
    return steps.BuildPlan(
        ollama=folder / "ollama",
        llama_cpp=folder / "llama.cpp",
        llama_cpp_commit="b" * 40,
        llama_cpp_build=7437,
        native=eras.named("vendored").native,
        preset="",
        version="9.9.9",
        jobs=1,
        offline=True,
        folder=folder / "build",
        logs=folder / "logs",
        run="run",
        tools=tools.toolset(config.load(environ={}).build, "go 1.24", folder),
    )


@pytest.mark.slow
def test_the_tests_of_a_tree(tmp_path: Path) -> None:
    good = engines._outcomes(_plan(tmp_path / "good"))
    assert good == [
        EngineTest(name=engines.ROTATION, ok=True),
        EngineTest(
            name=engines.ATTENTION, ok=True, figures=("head 128, turbo4, plain: 0.089", "head 64, turbo4, plain: 0.1")
        ),
    ]
    bad = engines._outcomes(_plan(tmp_path / "bad", rotation='t.Errorf("K, head 64: turned twice it is off by 1")'))
    assert [one.ok for one in bad] == [False, True]
    assert bad[0].wrong == ("K, head 64: turned twice it is off by 1",)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["no Go", 't.Skip("not here")'])
def test_a_test_that_does_not_run_is_no_outcome(tmp_path: Path, broken: str) -> None:
    with pytest.raises(VerificationFailed, match=r"ran [01] of 2 tests: .*-test\.log\)"):
        engines._outcomes(_plan(tmp_path, attention=broken))


def test_a_tree_that_is_not_the_releases(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"the tree of release is unknown: .*scratch\.json"):
        engines.examine(MAC, tmp_path, config.load(environ={}), workspace=tmp_path)
    with pytest.raises(DirtyScratch, match="there is no scratch tree"):
        require_unchanged(tmp_path / "gone", "a" * 40)
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "--quiet")
    git(tree, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--allow-empty", "-m", "one")
    head = git(tree, "rev-parse", "HEAD").strip()
    require_unchanged(tree, head)
    with pytest.raises(DirtyScratch, match=f"another one \\({head[:12]}, not {'a' * 12}\\)"):
        require_unchanged(tree, "a" * 40)
    (tree / "new.go").write_text("package nn\n")
    with pytest.raises(DirtyScratch, match=r"1 changes that the series did not make: new\.go"):
        require_unchanged(tree, head)


def _verdicts(tests: tuple[EngineTest, ...] | Unasked) -> tuple[Verdict, ...]:
    lacking = Unasked(reason="Go alone compiled it")
    return checklist.judge(
        Examined(probed=lacking, graph=None, kinds=(TURBO4,), engines=tests, gpu_needed="a Mac", gpu=lacking)
    )


def test_the_verdicts_on_a_mac_of_the_vendored_era() -> None:
    """Two of them by the tree's tests, the others unknown and no failure, with the reason."""
    rotation = EngineTest(name=engines.ROTATION, ok=True)
    attention = EngineTest(name=engines.ATTENTION, ok=True, figures=("head 128, turbo4, shift: 0.099", "head 64, x: 1"))
    found = _verdicts((rotation, attention))
    assert [one.word for one in found] == ["ok", "ok", *["unknown"] * 5]
    assert found[1].evidence.endswith("Attention passes in the release's tree: head 128, turbo4, shift: 0.099")
    assert all("Go alone compiled it" in one.evidence and not one.ok for one in found[2:])
    wrong = replace(attention, ok=False, wrong=("relative error 0.9",))
    assert [one.word for one in _verdicts((rotation, wrong))][:2] == ["ok", "FAILED"]
    nothing = _verdicts(Unasked(reason="there is no scratch tree"))
    assert [one.word for one in nothing] == ["unknown"] * 7
    assert "there is no scratch tree" in nothing[0].evidence


def test_a_release_of_go_alone_is_not_asked_for_programs(tmp_path: Path, make_release: MakeRelease) -> None:
    folder = make_release((TURBO4,))

    def none() -> tuple[EngineTest, ...]:
        raise DirtyScratch("the tree is gone")

    found = checklist.examine(folder, MAC, tmp_path, 128, folder=tmp_path, timeout_s=5, gpu_needed="a Mac", tests=none)
    assert found is not None
    verdicts = checklist.judge(found)
    assert [one.word for one in verdicts] == ["unknown"] * 7
    assert "the tests of its tree were not run: the tree is gone" in verdicts[0].evidence
    assert "has no turbo-probe: Go alone compiled it" in verdicts[2].evidence
    assert "no llama-server to compare" in verdicts[6].evidence


def test_a_mac_whose_gpu_fails_is_told_of_mlx() -> None:
    failed = Verdict(number=7, name="the GPU", ok=False, evidence="KL 1")
    assert "docs/explanation/assessment.md, MLX" in gpu.elsewhere(MAC, (failed,), ())
    assert gpu.elsewhere(MAC, (replace(failed, unknown=True), replace(failed, number=3)), ()) == ""
    assert gpu.elsewhere(replace(MAC, platform="linux-x86_64"), (failed,), ()) == ""
    proof = TypeProof(
        kv_cache_type="turbo4", model="probe-64", head_size=64, tokens=7, text="x", context_shifts=1, caches=(),
        ok=False, reason=f"turbo4 on probe-64: {gpu.OFF_GPU}: /api/ps states size_vram 0",
    )  # fmt: skip
    assert "mlx_lm.server" in gpu.elsewhere(MAC, (), (proof,))
    assert gpu.elsewhere(MAC, (), (replace(proof, reason="got 5 tokens"),)) == ""
