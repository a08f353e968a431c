"""What a run prints: text of others as it is."""

from __future__ import annotations

import io
import sys

import pytest

from toolchain.core.console import Console


def test_messages_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[red]x[/red] :warning: :x: [/nothing] caf\udce9"
    console = Console()
    console.note(text)
    console.warn(text)
    console.error(text)
    with console.step(text) as step:
        step.update(detail=text)
    said = capsys.readouterr().err
    assert said.count("[red]x[/red] :warning: :x: [/nothing] caf") == 5


def test_a_result_that_is_no_utf8_is_printed_with_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    Console(as_text=str).result("caf\udce9 :x: [b]")
    assert stdout.buffer.getvalue() == rb"caf\udce9 :x: [b]" + b"\n"
