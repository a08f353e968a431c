"""The file of presets: what llama-server makes of it, and what it cannot hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import ConfigError, ReleaseInvalid
from toolchain.service.unit import ServedModel
from toolchain.service.units import presets

BLOB = Path("/models/blobs") / f"sha256-{'a1b2' * 16}"
OTHER = Path("/models/blobs") / f"sha256-{'c3d4' * 16}"
PROJECTOR = Path("/models/blobs") / f"sha256-{'e5f6' * 16}"


def model(name: str, file: Path = BLOB, projector: Path | None = None) -> ServedModel:
    return ServedModel(name=name, file=file, projector=projector)


def canonical(section: str) -> str:
    """What llama-server makes of a section's name: only the last word of a tag counts, in capitals."""
    head, colon, tag = section.rpartition(":")
    return head + colon + re.sub(r".*[-.](\w+)$", r"\1", tag).upper() if colon else section


def test_names_that_llama_server_takes_for_one_have_sections_of_their_own() -> None:
    names = ("x:8b-instruct-q4_K_M", "x:70b-instruct-q4_K_M")
    assert len({canonical(name) for name in names}) == 1
    found = presets.of([model(names[0]), model(names[1], OTHER)])
    assert [(one.section, one.names) for one in found] == [("a1b2a1b2a1b2", names[:1]), ("c3d4c3d4c3d4", names[1:])]
    assert {canonical(one.section) for one in found} == {one.section for one in found}


def test_two_names_of_one_file_are_one_section_and_one_process() -> None:
    found = presets.of([model("a"), model("b", OTHER), model("a:latest"), model("a")])
    assert [one.names for one in found] == [("a", "a:latest"), ("b",)]
    assert "alias = a,a:latest\n" in presets.render(found)


def test_the_same_file_with_another_projector_is_another_model() -> None:
    found = presets.of([model("a"), model("b", BLOB, PROJECTOR), model("c", BLOB, OTHER)])
    assert [one.names for one in found] == [("a",), ("b",), ("c",)]
    assert len({one.section for one in found}) == 3


@pytest.mark.parametrize("name", ["a,b", "a[1]", 'a"b', "a'b", "a;b", "a#b", "a\nb", "a=b", " a", "a ", "", "a\\b"])
def test_a_name_that_the_file_cannot_hold(name: str) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.serve_models: .*the name .* (contains|has blanks|is empty)"):
        presets.of([model(name)])


@pytest.mark.parametrize("folder", ["a;b", "a#b", "a\nb", "a\udc80b"])
def test_a_path_that_the_file_cannot_hold(folder: str) -> None:
    path = Path("/models") / folder / "x.gguf"
    with pytest.raises(ConfigError, match=r"deploy\.serve_models: m: the path .* contains"):
        presets.of([model("m", path)])
    with pytest.raises(ConfigError, match=r"deploy\.serve_models: m: the projector .* contains"):
        presets.of([model("m", BLOB, path)])


def test_one_name_of_two_models() -> None:
    with pytest.raises(ConfigError, match=r"two models are called x: /a/x\.gguf and /b/x\.gguf"):
        presets.of([model("x", Path("/a/x.gguf")), model("x", Path("/b/x.gguf"))])
    with pytest.raises(ConfigError, match="a1b2a1b2a1b2: llama-server needs this name"):
        presets.of([model("x"), model("a1b2a1b2a1b2", OTHER)])


_word = st.text(min_size=1, max_size=20)
_file = _word.map(lambda text: Path("/") / text.replace("\0", "x"))


@settings(max_examples=50)
@given(st.lists(st.tuples(_word, _file, st.none() | _file), min_size=1, max_size=5, unique_by=lambda one: one[0]))
def test_what_is_read_is_what_was_written(drawn: list[tuple[str, Path, Path | None]]) -> None:
    try:
        found = presets.of([model(*one) for one in drawn])
    except ConfigError:
        return
    text = presets.render(found)
    assert len([line for line in text.split("\n") if line.startswith("[")]) == len(found) + 1
    path = Path("/nowhere")
    assert presets.parse(text, path) == found


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.ini"
    for text in ("", "version = 1\n", "version = 1\n[a]\nmodel = /x\n", "version = 1\nmodel\n[a\n"):
        path.write_text(text)
        with pytest.raises(ReleaseInvalid, match=f"{path}: not a file of presets"):
            presets.read(path)
    with pytest.raises(ReleaseInvalid, match="No such file"):
        presets.read(tmp_path / "none")
