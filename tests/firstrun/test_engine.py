"""A first run as a whole: what fails is reported, what is reported is true, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain.core import records
from toolchain.core.errors import ConfigError, FolderUnusable, LockHeld, PortInUse
from toolchain.core.exit_codes import all_errors
from toolchain.core.run import Run
from toolchain.firstrun import belongings, engine, report
from toolchain.firstrun.areas import launchd_loading
from toolchain.firstrun.areas.launchd_running import LAUNCHD
from toolchain.firstrun.assumption import Area, Assumption, Finding, Probe, confirmed, probed, refuted
from toolchain.firstrun.bench import LABEL, NOT_STARTED, Bench
from toolchain.firstrun.redaction import Redactor
from toolchain.firstrun.report import Summary
from toolchain.service import account
from toolchain.service.emulator import settings
from toolchain.stages import Release

HOLDS, FAILS, LATER = (
    Assumption(id=f"area.{name}", statement="It holds.", how="Look.") for name in ("holds", "fails", "later")
)


def area(examine: Callable[[Bench], Iterator[Finding]], name: str = "area") -> Area:
    return Area(name=name, assumptions=(HOLDS, FAILS, LATER), examine=examine)


def nothing_left(tmp_path: Path, *kept: str) -> bool:
    return {path.name for path in tmp_path.iterdir()} == {"turboquant.yaml", *kept}


def bad(bench: Bench) -> Iterator[Finding]:
    seen = bench.call(("sh", "-c", "echo said; exit 3"))
    yield Finding(id=HOLDS.id, status="confirmed", reason="it does", evidence=(seen,))
    raise RuntimeError("a bug")


def building(bench: Bench) -> Iterator[Finding]:
    bench.release = Release(
        id="1-0123", version="1", created="2026-11-26T15:21:08+00:00", platform="linux-x86_64", ollama_commit="a" * 40,
        llama_cpp_commit="b" * 40, llama_cpp_build=1, series_sha256="c" * 64, cache_types=(), tools={}, flags={},
        files={},
    )  # fmt: skip
    yield from bad(bench)


def good(_bench: Bench) -> Iterator[Finding]:
    yield Finding(id="good.one", status="confirmed", reason="it is")


GOOD = Area(name="good", assumptions=(Assumption(id="good.one", statement="It is."),), examine=good)


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_what_ends_one_area_is_named_and_the_next_is_examined(run: Run, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"report.{ending}"
    summary = engine.first_run(run, str(out), areas=(area(bad), GOOD))
    found = {one.id: (one.status, one.reason) for one in summary.assumptions}
    assert found == {
        "area.holds": ("confirmed", "it does"),
        "area.fails": ("not tested", "RuntimeError: a bug"),
        "area.later": ("not tested", "RuntimeError: a bug"),
        "good.one": ("confirmed", "it is"),
    }
    assert (summary.complete, summary.machine, summary.exit_code) == (True, "emulator", 0)
    assert summary.only_a_mac == ("area.holds", "area.fails", "area.later", "good.one")
    proof = summary.assumptions[0].evidence[0]
    assert (proof.command, proof.code, proof.output) == ("sh -c 'echo said; exit 3'", 3, "said\n")
    assert summary.file == out.name
    assert records.to_builtins(replace(report.read(out), file=out.name)) == records.to_builtins(summary)
    assert summary.release is None
    assert nothing_left(tmp_path, out.name)
    if ending == "zip":
        with zipfile.ZipFile(out) as archive:
            assert "a bug" in archive.read("raw/area/0002.txt").decode()
    else:
        with tarfile.open(out) as archive:
            assert archive.getnames() == ["summary.json", "summary.md", "raw/area/0001.txt", "raw/area/0002.txt"]


def test_the_report_names_the_release_that_was_built(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.zip"
    summary = engine.first_run(run, str(out), areas=(area(building), GOOD))
    assert summary.release is not None
    assert (summary.release.id, summary.release.series_sha256) == ("1-0123", "c" * 64)
    assert report.read(out).release == summary.release


def test_the_report_is_there_after_each_area_and_after_an_interrupt(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.zip"
    seen: list[Summary] = []

    def interrupted(_bench: Bench) -> Iterator[Finding]:
        seen.append(report.read(out))
        yield Finding(id=HOLDS.id, status="refuted", reason="it does not")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.first_run(run, str(out), areas=(GOOD, area(interrupted)))
    assert [one.status for one in seen[0].assumptions] == ["confirmed", *["not tested"] * 3]
    assert not seen[0].complete
    after = report.read(out)
    assert (after.complete, after.ended, after.refuted, after.exit_code) == (False, "interrupted", 1, 66)
    assert after.assumptions[2].reason == "interrupted"
    assert nothing_left(tmp_path, "report.zip")


def test_one_run_at_a_time(run: Run, tmp_path: Path) -> None:
    inside, done = threading.Event(), threading.Event()

    def waits(_bench: Bench) -> Iterator[Finding]:
        inside.set()
        assert done.wait(30)
        yield from ()

    first = threading.Thread(
        target=engine.first_run, args=(run, str(tmp_path / "a.zip")), kwargs={"areas": [area(waits)]}
    )
    first.start()
    try:
        assert inside.wait(30)
        with pytest.raises(LockHeld, match=rf"another first run is at work \(pid {os.getpid()}\)"):
            engine.first_run(run, str(tmp_path / "b.zip"), areas=[GOOD])
    finally:
        done.set()
        first.join()
    assert nothing_left(tmp_path, "a.zip")


def test_what_a_killed_run_left_is_removed_first(run: Run, tmp_path: Path) -> None:
    own = belongings.of(run.config)
    deep = own.run / "workspace/go/pkg"
    deep.mkdir(parents=True)
    (deep / "module").touch()
    deep.chmod(0o500)
    own.note_output(tmp_path / "killed.zip")
    (tmp_path / ".killed.zip.abcdefgh").touch()
    seen: list[bool] = []

    def looks(bench: Bench) -> Iterator[Finding]:
        seen.append((bench.folder / "workspace").exists())
        yield from ()

    engine.first_run(run, str(tmp_path / "a.zip"), areas=[area(looks)])
    assert seen == [False]
    assert nothing_left(tmp_path, "a.zip")


def test_unusable_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.zip").write_text("no report")
    for out, said in (("a.txt", "ends with none"), (str(tmp_path / "other.zip"), "no report of a first run")):
        with pytest.raises(ConfigError, match=said):
            engine.first_run(run, out, areas=[GOOD])
    with pytest.raises(ConfigError, match="there is no area 'moon'"):
        engine.first_run(run, "a.zip", ["moon"], areas=[GOOD])
    with pytest.raises(FolderUnusable, match=r"--out: .*Not a directory"):
        engine.first_run(run, str(tmp_path / "other.zip/a.zip"), areas=[GOOD])
    assert nothing_left(tmp_path, "other.zip")
    again = str(tmp_path / "a.zip")
    assert engine.first_run(run, again, areas=[GOOD]).file == engine.first_run(run, again, areas=[GOOD]).file


def test_no_free_port(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(socket.socket, "bind", taken)
    with pytest.raises(PortInUse, match=r"no port of 127\.0\.0\.1 is free"):
        engine.first_run(run, str(tmp_path / "a.zip"), areas=[GOOD])
    assert nothing_left(tmp_path)


def test_the_service_is_its_own_and_the_release_a_proven_one(run: Run) -> None:
    with belongings.held(run.config) as own:
        config = engine.configured(run, own).config
    assert config.deploy.label == LABEL != run.config.deploy.label
    assert config.deploy.port != run.config.deploy.port
    for folder in (config.deploy.prefix, config.deploy.models, config.workspace):
        assert Path(folder).is_relative_to(own.run)
    assert config.sources.ollama_ref == "v0.32.15"
    named = replace(run, config=replace(run.config, sources=replace(run.config.sources, ollama_ref="main")))
    with belongings.held(named.config) as own:
        assert engine.configured(named, own).config.sources.ollama_ref == "main"


def test_a_probe_that_fails_does_not_end_the_others(bench: Bench) -> None:
    def breaks(_bench: Bench) -> object:
        raise OSError(errno.EIO, "it broke")

    root, mac = (Assumption(id=f"a.{needs}", statement="It is.", needs=needs) for needs in ("root", "macOS"))
    probes = [
        Probe(HOLDS, breaks),  # type: ignore[arg-type]
        Probe(FAILS, lambda _: refuted("no")),
        Probe(root, lambda _: confirmed("yes")),
        Probe(mac, lambda _: confirmed("yes")),
    ]
    found = {one.id: (one.status, one.reason) for one in probed("a", *probes).examine(bench)}
    assert found[HOLDS.id] == ("not tested", f"OSError: [Errno {errno.EIO}] it broke")
    assert found[FAILS.id] == ("refuted", "no")
    assert found["a.root"] == ("not tested", "needs root: run it with sudo")
    assert found["a.macOS"] == (("confirmed", "yes") if bench.on_mac else ("not tested", "needs macOS"))


def test_programs_that_fail_hang_or_are_missing(bench: Bench) -> None:
    assert bench.call(("sh", "-c", "pwd; exit 7")).code == 7
    assert bench.kept[-1].output == f"{bench.folder}\n"
    assert bench.call((bench.folder / "missing",)).code == NOT_STARTED
    slow = bench.call(("sh", "-c", "echo begun; sleep 60"), timeout=0.5)
    assert (slow.code, slow.output) == (NOT_STARTED, "begun\n\n[ended after 0.5 s, its time limit]\n")


def test_a_job_that_is_forbidden_is_refuted_with_the_code_and_the_text(bench: Bench) -> None:
    root = bench.prefix / "launchd"
    settings.write(root, replace(settings.read(root), domains=("system",)))
    probe = next(one for one in launchd_loading.PROBES if one.assumption.id == "launchd.preflight")
    found = probe.test(bench)
    assert found.status == "refuted"
    assert "with 125, Domain does not support specified action (a managed profile, or no session" in found.reason
    assert found.evidence[-1].code == 125
    assert "Bootstrap failed: 125" in found.evidence[-1].output


@pytest.mark.slow
def test_where_every_job_is_refused_no_probe_waits_for_one(bench: Bench) -> None:
    root = bench.prefix / "launchd"
    settings.write(root, replace(settings.read(root), domains=("system",)))
    found = {one.id: one for one in LAUNCHD.examine(bench)}
    assert set(found) == {one.id for one in LAUNCHD.assumptions}
    waits = [id for id, one in found.items() if one.status == "not tested" and "125" not in one.reason]
    assert sorted(waits) == ["launchd.disable-per-domain", "launchd.log-opened-by-user"]
    assert "bootstrap answered 125, Domain does not support" in found["launchd.exit-timeout-default"].reason
    assert max(one.seconds for one in bench.kept) < 10


def test_labels_of_ours_in_what_launchctl_prints() -> None:
    printed = f"""gui/501 = {{
\tservices = {{
\t       0      - \t{LABEL}
\t    4711      - \t{LABEL}.race
\t       0      - \t{LABEL}.preflight
\t       0      - \t{LABEL}.reboot
\t       0      - \t{LABEL}ish
\t       0      - \tcom.example.{LABEL}
\t       0      - \tio.turboquant.ollama
\t}}
\tdisabled services = {{
\t\t"{LABEL}.reboot-disabled" => disabled
\t}}
}}
"""
    assert belongings.loaded(printed) == (LABEL, f"{LABEL}.race", f"{LABEL}.preflight")


def test_no_error_has_the_code_of_a_refuted_assumption() -> None:
    assert report.EXIT_REFUTED not in {error.exit_code for error in all_errors()}


def test_the_page_says_that_an_emulator_is_no_mac(run: Run, tmp_path: Path) -> None:
    page = report.page(engine.first_run(run, str(tmp_path / "a.zip"), areas=(area(bad), GOOD)))
    assert "machine: emulator (launchd's emulator: nothing here is a finding about a Mac)" in page
    assert "## Confirmed on emulator" in page
    assert "## Only a Mac can say (4)" in page
    assert json.loads(json.dumps(page))


def test_a_report_is_not_written_where_the_run_deletes_it(run: Run, tmp_path: Path) -> None:
    own = belongings.of(run.config)
    for folder in (own.folder, own.run, own.run / "jobs"):
        with pytest.raises(ConfigError, match="is deleted at the end"):
            engine.first_run(run, str(folder / "report.zip"), areas=[area(good)])
    assert not own.folder.exists()


def test_what_is_tested_without_a_program_has_evidence_too(bench: Bench) -> None:
    one = Assumption(id="area.one", statement="It holds.", how="Look.")
    (found,) = probed("area", Probe(one, lambda _bench: confirmed("it does"))).examine(bench)
    (seen,) = found.evidence
    assert ("area.one" in seen.command, "Look." in seen.command, seen.code, seen.output) == (True, True, 0, "it does\n")


def test_how_a_run_ended_is_redacted(tmp_path: Path) -> None:
    made = report.Report(
        tmp_path / "x.zip", [], machine="Mac", system="", toolkit="", redactor=Redactor([("user name", "annasmith")])
    )
    made.ended = "OSError(28, '/x/annasmith/y')"
    assert made.save().ended == "OSError(28, '/x/<user name>/y')"


def test_a_daemon_of_root_can_run_as_another_user(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(belongings, "_FOR_ROOT", tmp_path / "root's")
    monkeypatch.setattr(account, "is_root", lambda: True)
    with belongings.held(run.config) as own:
        assert (own.folder, own.run.stat().st_mode & 0o777) == (tmp_path / "root's", 0o711)
        given = replace(run.config, deploy=replace(run.config.deploy, service_manager="launchd"))
        models = Path(engine.configured(replace(run, config=given), own).config.deploy.models)
        assert not models.exists(), "an install gives it to the service's user"
