"""From the operator's names to a snapshot or a comparison; results for commits are cached in the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core import extras
from ...core.errors import ConfigError, RecordError
from ...core.records import read, record, sha256_bytes, to_json, write
from ...core.run import Run
from ...sources import Repository, open_origin, pin, recognise, release_name
from ...sources.mirror import ensure_contents, is_url
from ...stages import Target
from . import server, snapshot, trees, usage
from .compare import ApiDiff, diff
from .snapshot import FOLDER, PLATFORM
from .surface import PLATFORMS, Snapshot, names
from .trees import CommitTree, FolderTree, SourceTree
from .usage import Need, Usage

_OLLAMA = "ollama@"
"""before a ref of Ollama, in place of a tree of llama.cpp"""


def take(run: Run, tree: str = "", platform: str = PLATFORM) -> Snapshot:
    """The snapshot of one tree; an empty name is HEAD of llama.cpp."""
    _ready(platform)
    with run.console.step(f"snapshot of {tree or 'llama.cpp'}"):
        return snapshot.kept(_Origins(run).tree(tree or "HEAD"), run.workspace, platform)


def compare(run: Run, old: str, new: str, platform: str = PLATFORM, *, surface_only: bool = False) -> ApiDiff:
    """Compare two trees. An empty `old` is the llama.cpp that Ollama pins, an empty `new` HEAD of llama.cpp.

    `ollama@REF` is the llama.cpp of that Ollama. As `old` it is also the Ollama whose usage counts; as `new`, what it
    uses is compared with that. With `surface_only` Ollama is ignored, and everything counts as used.
    """
    _ready(platform)
    origins = _Origins(run)
    with run.console.step("compare the C surfaces"):
        before, after = origins.tree(old or _OLLAMA), origins.tree(new or "HEAD")
        was, now = (snapshot.kept(tree, run.workspace, platform) for tree in (before, after))
    if surface_only:
        return diff(was, now)
    with run.console.step("find what Ollama uses"):
        found = origins.usage(old)
        later = origins.usage(new) if new.startswith(_OLLAMA) else None
        needs = check(found, later, (before, was), (after, now), run.workspace)
        return diff(was, now, found, later, needs)


_Side = tuple[SourceTree, Snapshot]


def check(found: Usage, later: Usage | None, old: _Side, new: _Side, workspace: Path) -> tuple[Need, ...]:
    """Each use by one Ollama or by two, and which of the two trees provides it."""
    mine, theirs = ({_key(use): use for use in (*one.symbols, *one.server)} if one else {} for one in (found, later))
    uses = {key: (theirs | mine)[key] for key in sorted(theirs | mine)}
    before, after = (_provided(tuple(uses.values()), *side, workspace) for side in (old, new))
    return tuple(
        Need(
            kind=use.kind,
            text=use.text,
            where=mine[key].where if key in mine else "",
            in_old=use in before,
            in_new=use in after,
            later=theirs[key].where if key in theirs else "",
        )
        for key, use in uses.items()
    )


def _key(use: usage.Use) -> tuple[str, str, str]:
    """What tells one use from another: not its place."""
    return use.kind, use.text, use.program


@record
class _Provided:
    uses: tuple[usage.Use, ...]


def _provided(uses: Sequence[usage.Use], tree: SourceTree, surface: Snapshot, workspace: Path) -> frozenset[usage.Use]:
    code = [use for use in uses if use.kind in usage.IN_CODE]
    programs = [use for use in uses if use.kind not in usage.IN_CODE]
    return _named(code, tree, surface) | _served(programs, tree, workspace)


def _named(uses: Sequence[usage.Use], tree: SourceTree, surface: Snapshot) -> frozenset[usage.Use]:
    """Those that a tree declares in public, or mentions in its sources."""
    public = names(surface)
    private = sorted({use.text for use in uses} - public)
    known = public | tree.present(private, trees.layout_of(tree).sources, words=True)
    return frozenset(use for use in uses if use.text in known)


def _served(uses: Sequence[usage.Use], tree: SourceTree, workspace: Path) -> frozenset[usage.Use]:
    """Those that the programs of a tree provide."""
    if not isinstance(tree, CommitTree):
        return server.provided(uses, tree)
    asked = sha256_bytes(to_json(tuple(uses)).encode())[:16]
    path = workspace / FOLDER / f"{tree.origin}-programs-{asked}-{server.REVISION}.json"
    try:
        return frozenset(read(path, _Provided).uses)
    except RecordError:
        found = server.provided(uses, tree)
        write(path, _Provided(uses=tuple(sorted(found, key=lambda use: (use.kind, use.text, use.program)))))
        return found


def _ready(platform: str) -> None:
    extras.require("clang", "reading llama.cpp's headers")
    if platform not in PLATFORMS:
        raise ConfigError(f"--platform {platform}: unknown", hint=f"one of {', '.join(PLATFORMS)}")


class _Origins:
    """The configured repositories, opened on demand."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._opened: dict[Target, Repository] = {}

    def _repository(self, target: Target) -> Repository:
        if target not in self._opened:
            settings = self._run.config.sources
            origin = settings.ollama if target == "ollama" else settings.llama_cpp
            self._opened[target] = open_origin(target, origin, self._run.config, self._run.console)
        return self._opened[target]

    def tree(self, name: str) -> SourceTree:
        """A commit of llama.cpp by branch, tag, build or id; a folder; PATH@REF, a commit of another repository; or
        ollama@REF, the llama.cpp of an Ollama.
        """
        if name.startswith(_OLLAMA):
            return self._built_with(name)
        path, separator, ref = name.rpartition("@")
        if separator and ("/" in path or path == ".") and Path(path).expanduser().is_dir():
            return self._commit(Repository.open(Path(path)), ref)
        if ("/" in name or name == ".") and (folder := Path(name).expanduser()).is_dir():
            is_bare = (folder / "objects").is_dir() and (folder / "HEAD").is_file()
            return self._commit(Repository.open(folder), "HEAD") if is_bare else FolderTree(folder)
        return self._commit(self._repository("llama.cpp"), name)

    def _commit(self, repository: Repository, ref: str) -> CommitTree:
        settings, console = self._run.config.sources, self._run.console
        if pin.is_numbered(ref):
            found = pin.resolve(repository, ref, nearest=settings.nearest_pin, console=console)
            commit, describe = found.commit, pin.describe(found)
        else:
            commit = repository.resolve(ref)
            describe = release_name(repository, commit)
        if not repository.offline and is_url(settings.llama_cpp):
            ensure_contents(repository, commit, console)
        return CommitTree(repository, commit, describe)

    def _ollama(self, name: str) -> tuple[Repository, str]:
        """The commit of Ollama behind ollama@REF; the configured one for anything else."""
        settings = self._run.config.sources
        repository = self._repository("ollama")
        ref = name.removeprefix(_OLLAMA) if name.startswith(_OLLAMA) else ""
        commit = repository.resolve(ref or settings.ollama_ref or "HEAD")
        if is_url(settings.ollama):
            ensure_contents(repository, commit, self._run.console)
        return repository, commit

    def _built_with(self, name: str) -> SourceTree:
        """The llama.cpp that an Ollama is built with: the commit that it names, or what its own tree has."""
        repository, commit = self._ollama(name)
        layout = recognise(repository, commit)
        if "llama.cpp" not in layout.era.targets:
            return CommitTree(repository, commit, release_name(repository, commit))
        return self._commit(self._repository("llama.cpp"), layout.pin)

    def usage(self, name: str) -> Usage:
        """What an Ollama uses: that of ollama@REF, else the configured one.

        Raises `UnknownLayout` for a tree that is not Ollama's.
        """
        repository, commit = self._ollama(name)
        path = self._run.workspace / FOLDER / f"{commit}-usage-{usage.REVISION}.json"
        try:
            found = read(path, Usage)
        except RecordError:
            tree = CommitTree(repository, commit, release_name(repository, commit))
            found = usage.find(tree, recognise(repository, commit).era)
            write(path, found)
        return found
