"""The text that models read where none is named: the same today and in a year."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.core.errors import ChecksumMismatch, ConfigError
from toolchain.core.records import sha256_bytes, sha256_file
from toolchain.models.quality import divergence, samples
from toolchain.models.quality.samples import read_text


def test_it_is_frozen_and_long_enough() -> None:
    text = read_text("")
    assert sha256_file(samples.TEXT) == sha256_bytes(text.encode()) == samples.TEXT_SHA256
    assert len(text.encode()) >= divergence.BYTES
    assert len(set(text.splitlines())) > 1000, "prose, and no line over and over"


def test_a_changed_one_is_not_measured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "text.txt"
    changed.write_text(samples.TEXT.read_text().replace("Ollama", "Olama", 1))
    monkeypatch.setattr(samples, "TEXT", changed)
    with pytest.raises(ChecksumMismatch, match=r"text\.txt: was changed"):
        read_text("")
    assert read_text(str(changed)) == changed.read_text()  # by its name, any text will do


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    for path in (tmp_path / "latin", tmp_path / "none"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_text(str(path))
