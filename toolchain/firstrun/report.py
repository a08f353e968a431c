"""The report of a first run: a summary, the same for people, and the raw output of every program, in one archive."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from ..core import records
from ..core.errors import ConfigError, FolderUnusable
from ..core.records import record
from ..publishing import testresult
from ..publishing.testresult import SUMMARY
from ..stages import Release
from .assumption import Area, Assumption, Finding, Status
from .bench import Evidence
from .redaction import Redactor

EXIT_REFUTED = 66
PAGE, RAW = "summary.md", "raw"
_ENDINGS = (".tar.gz", ".tgz", ".zip")
_SHOWN = 4000
"""characters of a program's output in the summary; the raw file has all of it"""
_MOST_RAW = 8 << 20
Machine: TypeAlias = Literal["Mac", "emulator"]


@record
class Proof:
    """A program that was run for an assumption; `file` in the archive has its whole output."""

    command: str
    code: int
    seconds: float
    output: str
    file: str


@record
class Tested:
    """An assumption, and what this run found of it."""

    id: str
    area: str
    statement: str
    how: str
    needs: str
    status: Status
    reason: str
    evidence: tuple[Proof, ...] = ()


@record
class Examined:
    """An area that was examined. `error` is what ended it early; empty if nothing did."""

    name: str
    seconds: float
    error: str = ""


@record
class Built:
    """The release that a first run built and tested."""

    id: str
    version: str
    platform: str
    ollama_commit: str
    llama_cpp_commit: str
    series_sha256: str


@record
class Summary:
    """summary.json.

    On a `machine` that is no Mac, a finding says nothing about one, unless its assumption is portable.
    """

    toolkit: str
    machine: Machine
    """Mac, or emulator: launchd's emulator, on another system"""
    system: str
    complete: bool
    """whether the run came to its end"""
    ended: str
    """how it ended, if it is not complete; empty while it runs"""
    started: str
    seconds: float
    confirmed: int
    refuted: int
    not_tested: int
    areas: tuple[Examined, ...]
    assumptions: tuple[Tested, ...]
    only_a_mac: tuple[str, ...]
    """the assumptions of which only a Mac can say whether they hold; empty on a Mac"""
    redacted: dict[str, int]
    """what was replaced in this report, by kind"""
    left: tuple[str, ...]
    """what could not be removed from the machine; empty if all is gone"""
    release: Built | None = None
    """none when no release was built"""
    file: str = ""
    """name of the archive"""

    @property
    def exit_code(self) -> int:
        """66 when an assumption is refuted."""
        return EXIT_REFUTED if self.refuted else 0


class Report:
    """What was found so far. `save` may be called at any time."""

    def __init__(
        self, out: Path, areas: Sequence[Area], *, machine: Machine, system: str, toolkit: str, redactor: Redactor
    ) -> None:
        self._out = out
        self._areas = areas
        self._machine: Machine = machine
        self._system, self._toolkit = system, toolkit
        self._redactor = redactor
        self._begun = time.time()
        self._examined: list[Examined] = []
        self._found: dict[str, Finding] = {}
        self._texts: dict[int, tuple[str, str]] = {}
        """redacted outputs with their file names, by the identity of the evidence that `_kept` holds"""
        self._kept: list[Evidence] = []
        self._clean = functools.cache(redactor)  # what is saved several times is counted once
        self.saved: Summary | None = None
        """what was written last"""
        self.complete = False
        self.ended = ""
        self.left: tuple[str, ...] = ()
        self.release: Release | None = None
        """the one that was built"""

    def found(self, finding: Finding) -> None:
        """Add a finding; a later one of the same assumption replaces it."""
        self._found[finding.id] = finding

    def examined(self, area: Area, kept: Sequence[Evidence], seconds: float, error: str = "") -> None:
        """An area is done: `kept` are the programs that it ran, in order."""
        self._examined.append(Examined(name=area.name, seconds=round(seconds, 3), error=error))
        for evidence in kept:
            self._file(area.name, evidence)
        for one in area.assumptions:
            for evidence in self._found[one.id].evidence if one.id in self._found else ():
                self._file(area.name, evidence)

    def cleaned(self, text: str) -> str:
        """The text as the report has it."""
        return self._clean(text)

    def save(self) -> Summary:
        """Write the archive, whole or not at all. Raises `FolderUnusable` and `DiskFull`."""
        summary = self.summary()
        kind = _zip if self._out.name.endswith(".zip") else _tar
        files = {
            SUMMARY: records.to_json(replace(summary, file="")),
            PAGE: page(summary),
            **dict(self._texts.values()),
        }
        try:
            records.write_bytes(self._out, kind(files))
        except OSError as error:
            raise FolderUnusable(
                f"--out: {self._out}: {error.strerror}", hint="name another file: --out FILE"
            ) from error
        self.saved = summary
        return summary

    def summary(self) -> Summary:
        """Everything as it stands, redacted."""
        tested = tuple(self._tested(area, one) for area in self._areas for one in area.assumptions)
        counts = Counter(one.status for one in tested)
        by_id = {one.id: one for area in self._areas for one in area.assumptions}
        areas = tuple(replace(one, error=self._clean(one.error)) for one in self._examined)
        left = tuple(map(self._clean, self.left))
        return Summary(
            toolkit=self._toolkit,
            machine=self._machine,
            system=self._clean(self._system),
            complete=self.complete,
            ended=self._clean(self.ended),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._begun)),
            seconds=round(time.time() - self._begun, 1),
            confirmed=counts["confirmed"],
            refuted=counts["refuted"],
            not_tested=counts["not tested"],
            areas=areas,
            assumptions=tested,
            only_a_mac=tuple(id for id, one in by_id.items() if not one.portable) if self._machine != "Mac" else (),
            redacted=dict(sorted(self._redactor.counts.items())),
            left=left,
            release=_built(self.release) if self.release else None,
            file=self._out.name,
        )

    def _tested(self, area: Area, one: Assumption) -> Tested:
        finding = self._found.get(one.id)
        status: Status = finding.status if finding else "not tested"
        return Tested(
            id=one.id,
            area=area.name,
            statement=one.statement,
            how=one.how,
            needs=one.needs,
            status=status,
            reason=self._clean(finding.reason if finding else self._why_not(area, one)),
            evidence=tuple(self._proof(area.name, evidence) for evidence in finding.evidence) if finding else (),
        )

    def _why_not(self, area: Area, one: Assumption) -> str:
        done = next((examined for examined in self._examined if examined.name == area.name), None)
        if done is None:
            return f"the run ended before: {self.ended}" if self.ended else "the run has not come to it"
        return done.error or (f"needs {one.needs}" if one.needs else "the area came to no finding")

    def _file(self, area: str, evidence: Evidence) -> tuple[str, str]:
        """The evidence's file in the archive and its redacted output."""
        if id(evidence) not in self._texts:
            self._kept.append(evidence)
            number = len(self._kept)
            text = evidence.output
            if len(text) > _MOST_RAW:
                text = f"{text[: _MOST_RAW // 2]}\n[... left out ...]\n{text[-_MOST_RAW // 2 :]}"
            head = f"$ {evidence.command}\n# code {evidence.code}, {evidence.seconds:g} s\n"
            self._texts[id(evidence)] = f"{RAW}/{area}/{number:04}.txt", self._redactor(head + text)
        return self._texts[id(evidence)]

    def _proof(self, area: str, evidence: Evidence) -> Proof:
        name, text = self._file(area, evidence)
        command, _, rest = text.partition("\n# code ")
        output = rest.partition("\n")[2]
        if len(output) > _SHOWN:
            output = f"{output[: _SHOWN // 2]}\n[... in {name} ...]\n{output[-_SHOWN // 2 :]}"
        return Proof(
            command=command.removeprefix("$ "),
            code=evidence.code,
            seconds=evidence.seconds,
            output=output,
            file=name,
        )


def _built(release: Release) -> Built:
    return Built(**{field.name: getattr(release, field.name) for field in fields(Built)})


def destination(named: str) -> Path:
    """The file that --out names. Raises `ConfigError` for what is no archive's name, or another file than a report."""
    out = Path(named).expanduser().absolute()
    if not out.name.endswith(_ENDINGS):
        raise ConfigError(f"--out: {named!r} ends with none of {' '.join(_ENDINGS)}", hint="--out firstrun.tar.gz")
    if out.is_dir() or (out.exists() and not _is_report(out)):
        raise ConfigError(f"--out: {out} exists, and is no report of a first run", hint="name another file")
    return out


def _is_report(file: Path) -> bool:
    try:
        if file.name.endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                return SUMMARY in archive.namelist()
        with tarfile.open(file, "r:gz") as archive:
            first = archive.next()
            return first is not None and first.name == SUMMARY
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile):
        return False


def read(file: Path) -> Summary:
    """The summary in an archive. Raises `ConfigError`."""
    try:
        return msgspec.json.decode(testresult.summary_in(file), type=Summary)
    except records.UNREADABLE as error:
        raise ConfigError(f"{file}: no report of a first run: {error}") from error


def _tar(files: dict[str, str]) -> bytes:
    """Without a name or an id of whoever made it."""
    sink = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=sink, mode="wb") as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, text in files.items():
            data = text.encode(errors="replace")
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def _zip(files: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode(errors="replace"))
    return sink.getvalue()


def page(summary: Summary) -> str:
    """The summary for people, in Markdown."""
    return "\n".join(_lines(summary)) + "\n"


_WHERE = {"Mac": "this Mac", "emulator": "launchd's emulator: nothing here is a finding about a Mac"}


def _lines(summary: Summary) -> Iterator[str]:
    state = "" if summary.complete else f" (incomplete{f': {summary.ended}' if summary.ended else ''})"
    yield f"# First run{state}"
    yield ""
    yield f"machine: {summary.machine} ({_WHERE[summary.machine]})  "
    yield f"system: {summary.system}  "
    yield f"toolkit: {summary.toolkit}, {summary.started}, {summary.seconds:g} s  "
    yield (
        f"assumptions: {len(summary.assumptions)}: {summary.confirmed} confirmed, {summary.refuted} refuted, "
        f"{summary.not_tested} not tested"
    )
    for status in ("refuted", "confirmed", "not tested"):
        those = [one for one in summary.assumptions if one.status == status]
        if those:
            suffix = f" on {summary.machine}" if status != "not tested" and summary.machine != "Mac" else ""
            yield from ("", f"## {status.capitalize()}{suffix}", "")
        for one in those:
            yield f"- **{one.id}**: {one.statement}"
            yield f"  {_one_line(one.reason)}"
    if summary.only_a_mac:
        yield from ("", f"## Only a Mac can say ({len(summary.only_a_mac)})", "")
        yield f"Whatever is found above: a Mac has not confirmed them. {', '.join(summary.only_a_mac)}"
    broken = [one for one in summary.areas if one.error]
    if broken:
        yield from ("", "## Areas that ended early", "")
        yield from (f"- {one.name}: {_one_line(one.error)}" for one in broken)
    if summary.left:
        yield from ("", "## Left on this machine", "", *(f"- {one}" for one in summary.left))
    kinds = ", ".join(f"{kind}: {count}" for kind, count in summary.redacted.items())
    yield from ("", f"Redacted: {kinds or 'nothing'}.")


def _one_line(text: str) -> str:
    return " ".join(text.split())
