"""Examines one area after the other, and reports. What fails in one does not keep the next from being examined."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..core.config import Config, DeployConfig, SourcesConfig
from ..core.errors import ConfigError, DiskFull, FolderUnusable, PortInUse, ToolchainError
from ..core.run import Run
from ..host import ports
from ..host.machine import tester
from ..series import manifest
from ..service import account
from ..service.emulator import settings as emulator
from . import belongings, redaction, report
from .areas import AREAS, reboot
from .assumption import Area
from .belongings import Belongings
from .bench import LABEL, Bench
from .report import Report, Summary

_BOOTOUT_S = 0.1
"""how long the emulator keeps a label: ten races of bootout and bootstrap in CI, and each is still one"""


def first_run(
    run: Run,
    out: str,
    only: Sequence[str] = (),
    *,
    before_reboot: bool = False,
    after_reboot: bool = False,
    areas: Sequence[Area] = AREAS,
) -> Summary:
    """Examine the areas that `only` names, all of them if it is empty, and write the archive `out`.

    `before_reboot` prepares the area reboot, and `after_reboot` examines it: no other area then.

    Raises `ConfigError` for an unknown area or an unusable name, `LockHeld` while another first run is at work,
    `FolderUnusable` when `out` cannot be written, `PortInUse` when no port is free. An interrupt ends the run with what
    was found so far in `out`.
    """
    file = report.destination(out)
    chosen = choose(areas, only)
    if (before_reboot or after_reboot) and (only or before_reboot == after_reboot):
        raise ConfigError("--before-reboot and --after-reboot go with no other area and not together")
    own_folder = belongings.of(run.config).folder
    if file.parent.resolve().is_relative_to(own_folder.resolve()):
        raise ConfigError(f"--out: {own_folder} is deleted at the end of a first run", hint="name a file outside of it")
    with belongings.held(run.config) as own:
        if before_reboot or after_reboot:
            chosen = (reboot.before(own) if before_reboot else reboot.after(own),)
        return _examine(run, file, chosen, own)


def choose(areas: Sequence[Area], only: Sequence[str]) -> tuple[Area, ...]:
    """The areas of these names, all of them without names. Raises `ConfigError`."""
    known = [area.name for area in areas]
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"--only: there is no area {unknown[0]!r}", hint=f"areas: {', '.join(known)}")
    return tuple(area for area in areas if not only or area.name in only)


def _examine(run: Run, file: Path, areas: Sequence[Area], own: Belongings) -> Summary:
    own.note_output(file)
    bench = Bench(run=configured(run, own), folder=own.run, cleanup=ExitStack())
    result = Report(
        file,
        areas,
        machine="emulator" if bench.emulated else "Mac",
        system=tester().system,
        toolkit=__version__,
        redactor=redaction.of_this_machine(),
    )

    def finish() -> None:
        _undo(bench, result)
        result.left = (*result.left, *(one for one in own.remove() if one not in result.left))

    try:
        result.save()  # an unwritable file is known before anything is done
        for area in areas:
            _examine_area(area, bench, result)
            result.release = bench.release
            _save_so_far(run, result)
        result.complete = True
    except BaseException as ended:
        result.ended = "interrupted" if isinstance(ended, KeyboardInterrupt | SystemExit) else repr(ended)
        raise
    finally:
        belongings.surely(finish)
        belongings.surely(result.save)
    return result.saved or result.summary()


def _examine_area(area: Area, bench: Bench, result: Report) -> None:
    begun, started, error = len(bench.kept), time.monotonic(), ""
    own = {one.id for one in area.assumptions}
    with bench.run.console.step(f"first run: {area.name}") as step:
        try:
            for count, finding in enumerate(area.examine(bench), 1):
                if finding.id not in own:
                    raise ValueError(f"{area.name} has no assumption {finding.id}")
                result.found(finding)
                step.update(count, len(area.assumptions), finding.id)
        except ToolchainError as failed:
            error = str(failed)
        except Exception as failed:  # a bug in one area must not hide what the others find
            error = f"{type(failed).__name__}: {failed}"
            bench.keep(f"[{area.name}]", 1, 0.0, "".join(traceback.format_exception(failed)))
        except BaseException:
            error = "interrupted"
            raise
        finally:
            result.examined(area, bench.kept[begun:], time.monotonic() - started, error)
    if error:
        bench.run.console.warn(f"{area.name} ended early: {result.cleaned(error).splitlines()[0]}")


def _save_so_far(run: Run, result: Report) -> None:
    """A disk that is full now may have room at the end."""
    try:
        result.save()
    except (DiskFull, FolderUnusable) as error:
        run.console.warn(error.message)


def _undo(bench: Bench, result: Report) -> None:
    try:
        bench.cleanup.close()
    except Exception as error:
        result.left = (*result.left, f"{type(error).__name__} while cleaning up: {error}")


def configured(run: Run, own: Belongings) -> Run:
    """The same run with a service, a port and folders of its own, of a release of Ollama that the series is proven on.

    Raises `PortInUse` when no port is free.
    """
    given, folder = run.config, own.run
    kind = "emulator" if given.deploy.service_manager in ("emulator", "standin") or not _has_launchd() else "launchd"
    deploy = DeployConfig(
        prefix=str(folder / "prefix"),
        label=LABEL,
        port=_free_port(),
        service_manager=kind,  # type: ignore[arg-type]
        models=str(folder / "models"),
        domain=given.deploy.domain,
        user=given.deploy.user,
    )
    config = replace(given, workspace=str(folder / "workspace"), deploy=deploy, sources=_sources(given))
    if kind == "emulator" or not account.is_root():  # else an install makes it, for the service's user
        Path(deploy.models).mkdir()
    if kind == "emulator":
        root = Path(deploy.prefix) / "launchd"
        root.mkdir(parents=True, mode=0o700)
        emulator.write(root, emulator.Settings(owner_pid=os.getpid(), bootout_delay_s=_BOOTOUT_S))
    return Run(config=config, console=run.console)


def _sources(given: Config) -> SourcesConfig:
    """Those that are named, else the release that series.yaml names as proven: never HEAD by itself."""
    if given.sources.ollama_ref:
        return given.sources
    root = Path(given.series.path).expanduser() if given.series.path else manifest.OWN_SERIES
    proven = manifest.proven(root)
    return replace(given.sources, ollama_ref=proven.ollama if proven else "")


def _has_launchd() -> bool:
    return sys.platform == "darwin"


def _free_port() -> int:
    try:
        return ports.free()
    except OSError as error:
        raise PortInUse(
            f"no port of 127.0.0.1 is free: {error.strerror}", hint="end programs that hold many connections"
        ) from error
