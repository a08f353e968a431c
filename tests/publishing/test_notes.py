"""Notes say what records say; a changelog gets one entry for a release."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.core import records
from toolchain.core.checkout import ROOT
from toolchain.core.errors import ConfigError, ReleaseInvalid
from toolchain.proofs import RanOn
from toolchain.publishing import attestation, notes, statements, testresult
from toolchain.publishing.changelog import with_entry
from toolchain.publishing.keyfiles import generate
from toolchain.publishing.notes import Notes
from toolchain.publishing.published import STATEMENT_NAMESPACE
from toolchain.publishing.results import tables_of
from toolchain.stages import Release, Rendered, Sources
from toolchain.text import as_text

from .released import LINUX, MAC, OURS, World
from .test_signature import list_signer

CREATED = "2026-11-26T15:21:08+00:00"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Release, Release]:
    """A workspace with two releases; not to be changed."""
    world = World(tmp_path_factory.mktemp("noted"))
    generate(world.key)
    list_signer(world.signers, world.key, f'namespaces="{STATEMENT_NAMESPACE}"')
    old, new = world.release("old", ("types/ids", "types/gone")), world.release("new", ("types/ids", "types/added"))
    world.verify(new)
    return world, old, new


@pytest.fixture
def two(made: tuple[World, Release, Release], tmp_path: Path) -> tuple[World, Release, Release]:
    world, old, new = made
    shutil.copytree(world.folder, tmp_path / "world", symlinks=True)
    return World(tmp_path / "world"), old, new


def test_differences_between_two_releases(two: tuple[World, Release, Release]) -> None:
    world, old, new = two
    found = notes.write(world.run(), new.id, old.id)
    assert [(one.name, one.change) for one in found.edits] == [("types/added", "added"), ("types/gone", "removed")]
    assert [(one.path, one.change, one.was, one.now) for one in found.files] == [
        ("ggml.h", "changed", "+1 -0", "+1 -0"), (OURS, "changed", "+6 -0", "+6 -0"),
    ]  # fmt: skip
    assert [(one.target, one.was, one.now) for one in found.pins] == [
        ("ollama", "v0.33.0", "v0.33.0"), ("llama.cpp", "b7", "b7"),
    ]  # fmt: skip
    assert len({commit for one in found.pins for commit in (one.was_commit, one.now_commit)}) == 2
    assert (found.series_was, found.series_sha256) == (old.series_sha256, new.series_sha256)
    folder = world.records_of(new.id)
    assert records.read(folder / "notes.json", Notes) == found
    page = (folder / "notes.md").read_text()
    assert page.rstrip() == as_text(found)
    for said in (
        old.id,
        "| types/gone | removed | applies in ggml.h of llama.cpp |",
        f"b7 ({found.pins[1].now_commit[:12]})",
    ):
        assert said in page


def test_moved_edits_changed_pins_and_types(two: tuple[World, Release, Release]) -> None:
    world, old, new = two
    folder = world.records_of(new.id)
    rendered = records.read(folder / "rendered.json", Rendered)
    upstreamed = replace(rendered.edits[0], status="upstreamed")
    records.write(folder / "rendered.json", replace(rendered, edits=(upstreamed, *rendered.edits[1:])))
    before = world.records_of(old.id)
    sources, was = records.read(before / "sources.json", Sources), records.read(before / "rendered.json", Rendered)
    llama_cpp = replace(sources.llama_cpp, commit="d" * 40, describe="b6")
    records.write(before / "sources.json", replace(sources, llama_cpp=llama_cpp))
    targets = tuple(replace(one, commit="d" * 40) if one.target == "llama.cpp" else one for one in was.targets)
    records.write(before / "rendered.json", replace(was, targets=targets))
    records.write(before / "release.json", replace(old, cache_types=(replace(old.cache_types[0], db=20.0),)))
    found = notes.write(world.run(), new.id, old.id)
    (edit,) = (one for one in found.edits if one.change == "changed")
    assert (edit.name, edit.was, edit.now) == (
        "types/ids", "applies in ggml.h of llama.cpp", "upstreamed in ggml.h of llama.cpp",
    )  # fmt: skip
    assert (found.pins[1].was, found.pins[1].was_commit) == ("b6", "d" * 40)
    assert [(one.name, one.new) for one in found.cache_types] == [("turbo4", True)]
    assert "new or changed" in as_text(found)


def limits(world: World, release: Release) -> str:
    return " ".join(notes.write(world.run(), release.id).limits)


def test_known_limits_come_from_records(two: tuple[World, Release, Release]) -> None:
    world, old, new = two
    assert "It was not verified." in limits(world, old)
    said = limits(world, new)
    assert "level 1" in said
    for absent, ran_on, ok in (
        ("machine that the record does not name", LINUX, True),
        ("No Mac has run it", MAC, True),
        ("was not verified", MAC, False),
    ):
        world.verify(new, ran_on=ran_on, ok=ok)
        assert absent not in limits(world, new)
    cases: tuple[tuple[str, RanOn | None, bool], ...] = (
        ("machine that the record does not name", None, True),
        ("No Mac has run it", LINUX, True),
        ("No Mac has run it", MAC, False),
        ("Its verification failed", MAC, False),
    )
    for stated, where, ok in cases:
        world.verify(new, ran_on=where, ok=ok)
        assert stated in limits(world, new)


def test_a_signed_statement_from_a_mac_counts_and_the_notes_are_a_document(two: tuple[World, Release, Release]) -> None:
    world, _, new = two
    folder = world.pack(new)
    assert "No Mac has run it." in notes.write(world.run(), new.id).limits
    packed = world.packed(new.id)
    listed = packed.documents["notes"]
    assert (listed.name, listed.sha256) == ("notes.md", records.sha256_file(folder / "notes.md"))
    text = statements.make(packed, "verification", testresult.of_verification(world.verify(new, ran_on=MAC), b"{}"))
    world.verify(new)
    attestation.store(folder, packed, {"verification": ("verification.intoto.json", text)}, world.key)
    assert "No Mac has run it." not in notes.write(world.run(), new.id).limits
    assert "No Mac has run it." in notes.write(world.run(publish__signers=""), new.id).limits, "nothing verifies it"
    once = (folder / "release.json").read_bytes()
    notes.write(world.run(publish__signers=""), new.id)
    assert (folder / "release.json").read_bytes() == once


def test_what_is_not_there(two: tuple[World, Release, Release], tmp_path: Path) -> None:
    world, _, new = two
    with pytest.raises(ReleaseInvalid, match="not a release directory"):
        notes.write(world.run(), new.id, "0.1-none")
    with pytest.raises(ConfigError, match=r"--results: .*none\.md"):
        notes.write(world.run(), new.id, results=(str(tmp_path / "none.md"),))
    (tmp_path / "empty.md").write_text("# A page\n\n| no | table\n")
    with pytest.raises(ConfigError, match="has no table"):
        notes.write(world.run(), new.id, results=(str(tmp_path / "empty.md"),))
    with pytest.raises(ConfigError, match="--changelog"):
        notes.write(world.run(), new.id, changelog=str(tmp_path / "none.md"))
    assert not (world.records_of(new.id) / "notes.json").exists()


def test_tables_of_our_own_pages_are_copied_as_they_are() -> None:
    for page in sorted((ROOT / "docs/results").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        rules = re.findall(r"^\|[-:| ]*---[-:| ]*\|$", text, re.MULTILINE)
        found = tables_of(page) if rules else ()
        assert len(found) == len(rules), page
        for one in found:
            assert one.text in text
            assert one.title.startswith(text.splitlines()[0].removeprefix("# "))
    quality = tables_of(ROOT / "docs/results/quality.md")
    assert all("EPYC" in one.machine for one in quality)


def test_a_changelog_gets_one_entry(two: tuple[World, Release, Release]) -> None:
    world, old, new = two
    file = world.folder / "CHANGELOG.md"
    before = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    file.write_text(before, encoding="utf-8")
    notes.write(world.run(), new.id, old.id, changelog=str(file))
    once = file.read_text(encoding="utf-8")
    notes.write(world.run(), new.id, old.id, changelog=str(file))
    assert file.read_text(encoding="utf-8") == once
    assert once.count(f"- **Release {new.id}**: for linux-x86_64, of ollama v0.33.0 and llama.cpp b7.") == 1
    assert f"Since {old.id}: edits 1 added, 1 removed" in " ".join(once.split())
    assert max(map(len, once.splitlines())) <= max(120, *map(len, before.splitlines()))
    notes.write(world.run(), new.id, changelog=str(file))
    assert "edits 1 added" not in file.read_text(encoding="utf-8"), "the entry is replaced"


OTHER = "# Changes\n\nWhat users notice.\n\n## October 2026\n\n- **Old**: it was.\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OTHER, OTHER.replace("## October", "## November 2026\n\n- **Release 1-a**: text.\n\n## October", 1)),
        (
            OTHER.replace("October", "November"),
            OTHER.replace("October 2026\n\n", "November 2026\n\n- **Release 1-a**: text.\n"),
        ),
        ("# Changes\n", "# Changes\n\n## November 2026\n\n- **Release 1-a**: text.\n"),
        ("", "## November 2026\n\n- **Release 1-a**: text.\n"),
    ],
)
def test_where_an_entry_goes(before: str, after: str) -> None:
    assert with_entry(before, "1-a", CREATED, "text.") == after


LINES = ("", "# Changes", "## November 2026", "## May 2025", "- **Release 1-a**: old", "  more", "- **x**: y", "z")


@given(st.lists(st.sampled_from(LINES)), st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1))
def test_an_entry_is_idempotent_and_loses_nothing_else(lines: list[str], text: str) -> None:
    before = "\n".join(lines)
    once = with_entry(before, "1-a", CREATED, text)
    assert with_entry(once, "1-a", CREATED, text) == once
    assert once.count("- **Release 1-a**:") == max(1, before.count("- **Release 1-a**:"))
    for line in ("- **x**: y", "## May 2025", "# Changes", "z"):
        assert once.splitlines().count(line) >= lines.count(line)
