"""Golden triples: a pristine file, an edit, and the file that must come of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from toolchain.series.edit import Edit, locate, splice_all

TRIPLES = sorted((Path(__file__).parent / "golden").iterdir())


@pytest.mark.parametrize("triple", TRIPLES, ids=lambda path: path.name)
def test_triple(triple: Path) -> None:
    edit = msgspec.convert(yaml.safe_load((triple / "edit.yaml").read_text()), Edit)
    (pristine,) = triple.glob("pristine.*")
    (expected,) = triple.glob("expected.*")
    text = pristine.read_text()
    assert splice_all(text, locate(edit, text, edit.insert)) == expected.read_text()
