"""From pristine blobs and the series to one unified diff per target.

Every edit is located in the pristine text, never in the result of another edit, so the order of edits matters only
where two insert at the same place. Nothing here writes to the operator's repository: the result is built in a
temporary object store beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ..core import templates, temporary
from ..core.errors import AnchorMissing, ConfigError, PatchFailed, SeriesError, ToolchainError
from ..core.records import record, sha256_bytes
from ..sources import Repository, eras, recognise, release_name
from ..sources.origins import open_checkout
from ..sources.scratch import AUTHOR
from ..stages import EditResult, FileChecksum, Rendered, RenderedTarget, Sources, Target
from . import patterns
from .edit import Edit, Splice, locate, splice_all
from .facts import Facts, read_facts
from .manifest import LoadedPart, Series, allows, require_era
from .place import line_number
from .tree import Tree

MAILED_PATCH = "9900-turboquant.patch"
"""our llama.cpp diff among the patches of `Era.patches`"""
COMPAT_PATCH = "llama/compat/900-turboquant.patch"
"""Where Ollama's own build finds our llama.cpp diff. It applies patches in the order of their names."""

# Fixed, so that the same trees give the same bytes with any configuration and version of git.
_DIFF = (
    *("diff-tree", "-p", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--unified=3", "--inter-hunk-context=0", "--diff-algorithm=myers", "--indent-heuristic", "--ignore-submodules"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--no-relative"),
)


@record
class EditOutcome:
    """One edit on one tree: its splices, or why there are none."""

    name: str
    edit: Edit
    splices: tuple[Splice, ...]
    status: str
    reason: str = ""
    error: ToolchainError | None = None


def trees(sources: Sources) -> tuple[Tree, Tree]:
    """The two pristine trees of a run: llama.cpp first, since its diff is a file of Ollama's.

    In an era where llama.cpp is a part of Ollama's tree, both are in one repository.
    """
    era = eras.of(sources)
    ollama = Tree(
        target="ollama",
        repository=open_checkout(sources.ollama),
        commit=sources.ollama.commit,
        version=ollama_version(sources.ollama.describe),
        era=era.name,
    )
    if "llama.cpp" not in era.targets:
        return replace(ollama, target="llama.cpp"), ollama
    llama_cpp = Tree(
        target="llama.cpp",
        repository=open_checkout(sources.llama_cpp),
        commit=sources.llama_cpp.commit,
        version=str(sources.pin.build),
        era=era.name,
    )
    return llama_cpp, ollama


def contained(ollama: Repository, name: str) -> Tree:
    """The llama.cpp in a tree of Ollama's. Raises `ConfigError` for a tree without one."""
    commit = ollama.resolve(name)
    era = recognise(ollama, commit).era
    if "llama.cpp" in era.targets:
        raise ConfigError(f"Ollama {name} pins a llama.cpp, and contains none", hint="name its pin among the builds")
    version = ollama_version(release_name(ollama, commit))
    return Tree(target="llama.cpp", repository=ollama, commit=commit, version=version, era=era.name)


def ollama_version(describe: str) -> str:
    """The version of a described commit: v0.33.0-rc2-15-gabc -> 0.33.0rc2; 0 if no tag was found."""
    match = re.match(r"v?(\d+(?:\.\d+)+)(?:-rc(\d+))?", describe)
    return match[1] + (f"rc{match[2]}" if match[2] else "") if match else "0"


def render(series: Series, sources: Sources) -> Rendered:
    """Render the whole series onto both trees: one diff for each repository of the era.

    Raises the error of the first edit that does not apply, or `PatchFailed`. Rendering twice gives the same bytes.
    """
    llama_cpp, ollama = trees(sources)
    with llama_cpp.repository, ollama.repository:
        facts = read_facts(series, (llama_cpp, ollama))
        done, rendered_targets = list[EditResult](), list[RenderedTarget]()
        extra: dict[str, bytes] = {}
        tried = [(tree, list(outcomes_on(series, tree, facts))) for tree in (llama_cpp, ollama)]
        for tree, outcomes in tried:
            for outcome in outcomes:
                if outcome.error:
                    raise outcome.error
            done += [result_of(outcome, tree) for outcome in outcomes]
        targets, folder = eras.of(sources).targets, eras.of(sources).patches
        if folder:
            alone = render_target(series, llama_cpp.target, tried[:1], facts, {})
            extra = {f"{folder}/{MAILED_PATCH}": mailed(alone.diff, llama_cpp)}
        for target in targets:
            own = [pair for pair in tried if pair[0].target == target or pair[0].target not in targets]
            result = render_target(series, target, own, facts, extra)
            rendered_targets.append(result)
            extra = {COMPAT_PATCH: result.diff.encode("utf-8", "surrogateescape")}
    return Rendered(
        series_sha256=series.sha256,
        targets=tuple(rendered_targets),
        edits=tuple(done),
        facts={name: str(value) for name, value in facts.items()},
        cache_types=series.types,
        model_option=series.model_option,
    )


def mailed(diff: str, tree: Tree) -> bytes:
    """A diff of a contained llama.cpp as a patch of llama.cpp itself, in the form that `git am` reads.

    Fixed in all but the diff, so that the same trees give the same bytes.
    """

    def renamed(match: re.Match[str]) -> str:
        path = tree.origin(match[2])
        return f"{match[1]}{path}" if path else match[0]

    lines = []
    for line in diff.split("\n"):
        if line.startswith(("diff --git ", "--- a/", "+++ b/")):
            line = re.sub(r"(\b[ab]/)(\S+)", renamed, line)
        lines.append(line)
    head = f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {AUTHOR}\nDate: Thu, 1 Jan 1970 00:00:00 +0000\n"
    text = f"{head}Subject: [PATCH] TurboQuant KV cache types\n\n---\n\n" + "\n".join(lines)
    return text.encode("utf-8", "surrogateescape")


def served_parts(series: Series, tree: Tree) -> list[LoadedPart]:
    """The parts for this tree. Raises `SeriesError` when a concern has no part for it."""
    require_era(series, tree.era)
    mine = [loaded for loaded in series.parts if loaded.part.target == tree.target and tree.era in loaded.part.ranges]
    served = [loaded for loaded in mine if allows(loaded.part, tree.era, tree.version)]
    missing = {loaded.part.concern for loaded in mine} - {loaded.part.concern for loaded in served}
    if missing:
        ranges = ", ".join(sorted({loaded.part.ranges[tree.era] for loaded in mine if loaded.part.concern in missing}))
        raise SeriesError(
            f"the series does not support {tree.target} {tree.version}: {', '.join(sorted(missing))} ({ranges})",
            hint="use a tree in this range, or add a part for it to series.yaml",
        )
    return served


def outcomes_on(series: Series, tree: Tree, facts: Facts) -> Iterator[EditOutcome]:
    """Try every edit for this tree on it. Failures are in the outcomes; nothing is raised."""
    for loaded in served_parts(series, tree):
        for edit in loaded.edits:
            yield outcome_of(edit, loaded, tree, facts)


def outcome_of(edit: Edit, loaded: LoadedPart, tree: Tree, facts: Facts) -> EditOutcome:
    """One edit on one tree."""
    name = f"{Path(loaded.part.edits).stem}/{edit.name}"
    try:
        for probe, status in ((edit.upstreamed_when, "upstreamed"), (edit.not_if, "skipped")):
            text = read_text(tree, probe.file) if probe else None
            if probe and text is not None and patterns.matches(name, probe.pattern, text, re.MULTILINE):
                reason = f"{probe.file} already has {probe.pattern!r}"
                return EditOutcome(name=name, edit=edit, splices=(), status=status, reason=reason)
        text = read_text(tree, edit.file)
        if text is None:
            raise AnchorMissing(f"{edit.name}: {tree.target} has no file {edit.file}")
        placed = msgspec.structs.replace(edit, anchor=fill(edit.anchor, facts, name)) if edit.anchor else edit
        splices = tuple(locate(placed, text, fill(edit.insert, facts, name)))
    except (ToolchainError, UnicodeDecodeError) as error:
        failed = error if isinstance(error, ToolchainError) else AnchorMissing(f"{name}: {edit.file} is not UTF-8")
        return EditOutcome(name=name, edit=edit, splices=(), status="broken", reason=failed.message, error=failed)
    return EditOutcome(name=name, edit=edit, splices=splices, status="applies")


def render_target(
    series: Series,
    target: Target,
    tried: Sequence[tuple[Tree, Sequence[EditOutcome]]],
    facts: Facts,
    extra: Mapping[str, bytes],
) -> RenderedTarget:
    """Make the files of one repository, and the diff between them and the pristine commit.

    `tried` has the outcomes on each tree that it contains; `extra` are further files to add, by path.
    """
    files, added, patches = dict[str, bytes](), dict(extra), list[tuple[str, bytes]]()
    for tree, outcomes in tried:
        splices: dict[str, list[Splice]] = {}
        for outcome in outcomes:
            splices.setdefault(outcome.edit.file, []).extend(outcome.splices)
        for path, found in splices.items():
            text = read_text(tree, path)
            if found and text is not None:
                if tree.place(path) in files:
                    raise SeriesError(f"{path}: parts of both targets edit it", hint="make them parts of one target")
                files[tree.place(path)] = splice_all(text, found).encode()
        served = served_parts(series, tree)
        added |= {tree.place(path): own_file(loaded, path, facts) for loaded in served for path in loaded.files}
        patches += [(loaded.part.patch, loaded.patch) for loaded in served if loaded.patch]
    for path, content in added.items():
        if tree.repository.exists(tree.commit, path):
            raise SeriesError(f"{target} already has a file {path}", hint="rename our file in series.yaml")
        files[path] = content
    diff, changed = _diff(tree, files, patches)
    return RenderedTarget(
        target=target,
        commit=tree.commit,
        diff=diff,
        sha256=sha256_bytes(diff.encode("utf-8", "surrogateescape")),
        files=changed,
    )


def own_file(loaded: LoadedPart, path: str, facts: Facts) -> bytes:
    """An added file: verbatim, or rendered if it is a template (.j2)."""
    content = loaded.files[path]
    source = loaded.part.files[path]
    known = {**facts, "text": loaded.texts.__getitem__}
    return fill(content.decode(), known, source).encode() if source.endswith(".j2") else content


def fill(template: str, facts: Mapping[str, Any], where: str) -> str:
    """A rendered insert. An unknown fact is an error, not an empty string."""
    try:
        return templates.fill(template, facts)
    except templates.TemplateError as error:
        raise SeriesError(f"{where}: insert: {error}", hint="facts are declared in series.yaml") from error


def read_text(tree: Tree, path: str) -> str | None:
    """A file of the pristine tree as text; None when there is no such file."""
    data = tree.read(path)
    return None if data is None else data.decode()


def _diff(
    tree: Tree, files: Mapping[str, bytes], patches: list[tuple[str, bytes]]
) -> tuple[str, tuple[FileChecksum, ...]]:
    repository = tree.repository
    with temporary.folder("render") as folder:
        objects = folder / "objects"
        objects.mkdir()
        env = {
            "GIT_INDEX_FILE": str(folder / "index"),
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository.objects),
        }
        repository.git("read-tree", tree.commit, env=env)
        if files:
            blobs = [folder / f"blob{number}" for number in range(len(files))]
            for blob, content in zip(blobs, files.values(), strict=True):
                blob.write_bytes(content)
            digests = repository.git("hash-object", "-w", "--no-filters", "--", *blobs, env=env).split()
            entries = [f"100644,{digest},{path}" for digest, path in zip(digests, files, strict=True)]
            words = [word for entry in entries for word in ("--cacheinfo", entry)]
            repository.git("update-index", "--add", *words, env=env)
        for name, content in patches:
            patch = folder / "patch"
            patch.write_bytes(content)
            hint = f"refresh {name}, or give it a narrower range in series.yaml"
            repository.git("apply", "--cached", "--whitespace=nowarn", patch, env=env, failure=PatchFailed, hint=hint)
        made = repository.git("write-tree", env=env).strip()
        diff = repository.git(*_DIFF, tree.commit, made, env=env)
        numbers = repository.git("diff-tree", "-r", "--numstat", "--no-renames", "-z", tree.commit, made, env=env)
        changed = []
        for entry in filter(None, numbers.split("\0")):
            inserted, deleted, path = entry.split("\t", 2)
            if inserted == "-":  # git's diff would not have it
                raise SeriesError(f"{path}: with the series it is binary", hint="a NUL byte is in an insert or a file")
            pristine = repository.read_blob(tree.commit, path)
            shown = files.get(path) if not patches else None
            if shown is None:
                text = repository.git("cat-file", "blob", f"{made}:{path}", env=env)
                shown = text.encode("utf-8", "surrogateescape")
            changed.append(
                FileChecksum(
                    path=path,
                    pristine=sha256_bytes(pristine) if pristine is not None else "",
                    rendered=sha256_bytes(shown),
                    inserted=int(inserted),
                    deleted=int(deleted),
                )
            )
    return diff, tuple(changed)


def result_of(outcome: EditOutcome, tree: Tree) -> EditResult:
    """The record of an outcome."""
    line = 0
    if outcome.splices:
        text = read_text(tree, outcome.edit.file) or ""
        first = min(outcome.splices, key=lambda splice: splice.start)
        line = line_number(text, first.start)
    status: Any = outcome.status
    return EditResult(
        name=outcome.name,
        target=tree.target,
        file=outcome.edit.file,
        status=status,
        line=line,
        reason=outcome.reason,
    )
