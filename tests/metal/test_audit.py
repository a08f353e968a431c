"""What the audit says of a tree: whole, without a kernel, without a claim, and what does not compile."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from git import Repo

from tests.shared import Miniatures
from toolchain.core.config import Config, load
from toolchain.core.console import Console
from toolchain.core.errors import UnknownRevision
from toolchain.metal import audit
from toolchain.metal.host import METAL
from toolchain.text import as_text

pytestmark = pytest.mark.slow

Break = Callable[[Path], None]
TURBO, CLAIMS, OPS = (
    METAL / "ggml-metal-turbo-source.h",
    METAL / "ggml-metal-turbo-ops.h",
    METAL / "ggml-metal-ops.cpp",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Path:
    return miniatures.patched(tmp_path_factory.mktemp("audited"))


@pytest.fixture(scope="module")
def config(tree: Path, miniatures: Miniatures) -> Config:
    flags = {"fork.origin": str(tree), "workspace": str(miniatures.workspace)}
    return load(file=tree.parent / "turboquant.yaml", environ={}, flags=flags)


def changed(path: Path, pattern: str, new: str) -> Break:
    def change(tree: Path) -> None:
        text, count = re.subn(pattern, new, (tree / path).read_text(), flags=re.MULTILINE)
        assert count
        (tree / path).write_text(text)

    return change


def audited(tree: Path, config: Config, tmp_path: Path, change: Break) -> audit.TreeAudit:
    copy = tmp_path / "copy"
    shutil.copytree(tree / "ggml", copy / "ggml")
    change(copy)
    return audit.audit_tree(copy, config, Path(config.workspace))


def test_a_tree_that_has_all(tree: Path, config: Config) -> None:
    found = audit.audit_tree(tree, config, Path(config.workspace))
    assert found.verdict == "complete", found
    assert [kind.type for kind in found.types] == ["turbo4", "turbo3", "turbo2", "turbo5"]
    assert all(set(kind.answers.values()) == {"kernel"} and not kind.absent for kind in found.types)


def test_a_claim_without_a_kernel(tree: Path, config: Config, tmp_path: Path) -> None:
    others = "TURBO_ENCODERS(TURBO4, turbo4, 3) TURBO_ENCODERS(TURBO2, turbo2, 1) TURBO_ENCODERS(TURBO5, turbo5, 4)"
    found = audited(tree, config, tmp_path, changed(TURBO, r"^TURBO_TYPES\(TURBO_ENCODERS\)$", others))
    kind = next(kind for kind in found.types if kind.type == "turbo3")
    assert (found.verdict, kind.verdict) == ("partial", "partial")
    assert kind.answers["set_rows"] == kind.answers["copy from f32"] == "claimed, no kernel"
    assert set(kind.absent) == {"kernel_turbo_set_rows_i64_turbo3", "kernel_turbo_copy_f32_turbo3"}
    assert "the host code uses kernel_turbo_copy_f32_turbo3, which is missing: copy from f32" in as_text(
        audit.TreeAudits([found])
    )


def test_a_kernel_without_a_claim(tree: Path, config: Config, tmp_path: Path) -> None:
    found = audited(tree, config, tmp_path, changed(CLAIMS, r"\{ 64, 64, 1, 2 \},", ""))
    assert found.verdict == "partial"
    assert "attention q8_0/turbo4 64/64, prompts (not claimed)" in found.types[0].missing
    assert {re.findall(r"\d+/\d+", what)[-1] for kind in found.types for what in kind.missing} == {"64/64"}


def test_host_code_that_gives_up(tree: Path, config: Config, tmp_path: Path) -> None:
    """Attention that upstream's own host code is left with, which wants K and V of one type."""
    change = changed(CLAIMS, r"if \(!ggml_metal_turbo_op\(op\)\) \{", "if (op->op == GGML_OP_FLASH_ATTN_EXT) {")
    answers = audited(tree, config, tmp_path, change).types[0].answers
    assert answers["attention q8_0/turbo4 128/128, one token"] == "host gives up"
    assert answers["attention turbo4/turbo4 128/128, one token"] == "claimed, no kernel"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (changed(TURBO, r"turbo_half_bits\(float value\) \{", "turbo_half_bits(float value) { nonsense;"), "nonsense"),
        (lambda tree: shutil.rmtree(tree / METAL), "no .metal file"),
        (changed(OPS, r"^struct ggml_metal_op \{", "nonsense;\nstruct ggml_metal_op {"), "ggml-metal-ops.cpp"),
    ],
)
def test_what_does_not_compile_is_an_answer(
    tree: Path, config: Config, tmp_path: Path, change: Break, word: str
) -> None:
    found = audited(tree, config, tmp_path, change)
    assert (found.verdict, found.types) == ("unknown", ())
    assert word in found.why


def test_branches_of_a_fork(tree: Path, config: Config) -> None:
    """Branches with the same sources are audited once; one without the types has none."""
    with Repo(tree) as repository:
        stock = repository.active_branch.name
        repository.git.branch("same")
        repository.git.checkout("-b", "turbo")
        repository.git.add(all=True)
        repository.git.execute(
            ["git", "-c", "user.name=A Fork", "-c", "user.email=fork@example.invalid", "commit", "-qm", "types"]
        )
    found = audit.audit_fork(config, Console(json=True), Path(config.workspace))
    verdicts = {name: one.verdict for one in found for name in one.branches}
    assert verdicts == {stock: "none", "same": "none", "turbo": "complete"}
    assert len(found) == 2
    with pytest.raises(UnknownRevision, match="no branch absent"):
        audit.audit_fork(config, Console(json=True), Path(config.workspace), ["absent"])
