"""What is probably not what was meant, though an installation goes on with it: looked for before any change."""

from __future__ import annotations

import itertools
import mmap
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.cachetypes import grammar
from ..core.config import DeployConfig
from ..core.console import Console
from ..core.errors import ConfigError
from ..service import model_store
from ..service.account import Account
from ..service.unit import Unit, Variables
from ..service.units import further
from ..sources.eras.era import LLAMA_SERVER
from ..stages import DeployWarning, Release

LOOK_S = 3.0
"""for all models of the store, which may be on a slow disk"""
_MEASURED = ("deploy.kv_cache_type", "deploy.calibration")
"""settings that `ship` chooses for a model; an installation of its own does not know them"""
_SHOWN = 10
"""warnings on models that a terminal gets; the record has all"""


def variables(unit: Unit, folder: Path, config: DeployConfig) -> tuple[DeployWarning, ...]:
    """Names in deploy.environment that the program of the release in `folder` does not know, and deploy.calibration
    where nothing does.

    Raises `ConfigError` for one that resembles a name that it knows.
    """
    warnings = []
    files = [path for path in (folder / unit.program[0]).parent.iterdir() if path.is_file() and not path.is_symlink()]
    for name, close in further.unknown(config, unit.variables).items():
        spelled = name.replace("LLAMA_ARG_NO_", "LLAMA_ARG_")  # which llama.cpp makes of the other
        if any(_occurs(spelled, path, unit.variables.kinds) for path in files):
            continue
        if close:
            raise ConfigError(
                f"deploy.environment: {unit.name} knows no variable {name}", hint=f"did you mean {close}?"
            )
        message = f"this release of {unit.name} does not seem to know it"
        warnings.append(DeployWarning(about=name, message=message, remedy="check its name in deploy.environment"))
    if config.calibration and not (folder / LLAMA_SERVER).is_file():
        message = f"has no effect: this release has no {LLAMA_SERVER}, which alone calibrates keys"
        warnings.append(DeployWarning(about="deploy.calibration", message=message, remedy="leave it out"))
    return tuple(warnings)


def models(
    release: Release, config: DeployConfig, owner: Account, environ: Mapping[str, str] = os.environ
) -> tuple[DeployWarning, ...]:
    """The models that the service will have: another store that the shell uses, and those that the cache type does
    not suit."""
    return (*_other_store(config, owner, environ), *_unsuited(release, config, owner))


def dropped(
    before: Mapping[str, str], values: Mapping[str, str], known: Variables, origins: Mapping[str, str]
) -> tuple[DeployWarning, ...]:
    """What `ship` may have chosen for the service, whose environment was `before`, and its new `values` have by
    default only."""
    warnings = []
    for setting in _MEASURED:
        names = [name for name in known.settings if known.settings[name] == setting and before.get(name)]
        had = ":".join(dict.fromkeys(before[name] for name in names))
        if origins.get(setting, "default") == "default" and any(before[name] != values.get(name) for name in names):
            new = ":".join(dict.fromkeys(values[name] for name in names if name in values)) or "none"
            warnings.append(
                DeployWarning(
                    about=setting,
                    message=f"the service has {had}, and gets {new}, which is the default",
                    remedy="set it to keep it",
                )
            )
    return tuple(warnings)


def show(warnings: tuple[DeployWarning, ...], console: Console) -> None:
    """Print the warnings, the first of many only."""
    for one in warnings[:_SHOWN]:
        console.warn(f"{one.about}: {one.message}; {one.remedy}")
    if (more := len(warnings) - _SHOWN) > 0:
        console.warn(f"{more} more of these; --json lists all")


def _occurs(name: str, program: Path, known: Mapping[str, str]) -> bool:
    """Whether a program contains the name, which may be newer than we are; not as the beginning of a known one."""
    if any(one.startswith(name) for one in known):
        return False
    try:
        with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(name.encode()) >= 0
    except (OSError, ValueError):
        return False


def _other_store(config: DeployConfig, owner: Account, environ: Mapping[str, str]) -> Iterator[DeployWarning]:
    """The shell's OLLAMA_MODELS, when it has models that the service will not see."""
    shell = environ.get("OLLAMA_MODELS", "").strip()
    if config.models or not shell:
        return
    try:
        theirs, ours = Path(shell).expanduser().absolute(), model_store.default(owner)
    except RuntimeError:  # ~NAME of nobody: there are no models
        return
    if os.path.realpath(theirs) == os.path.realpath(ours):
        return
    if any(itertools.islice((theirs / "manifests").glob("*/*/*/*"), 1)):
        yield DeployWarning(
            about="OLLAMA_MODELS",
            message=f"this shell's models are in {theirs}, the service will look in {ours}",
            remedy=f"to serve them: {shlex.join(['--set', f'deploy.models={theirs}'])}",
        )


def _unsuited(release: Release, config: DeployConfig, owner: Account) -> Iterator[DeployWarning]:
    root = model_store.named(config) if config.models else model_store.default(owner)
    if not (root / "manifests").is_dir():
        return
    from ..models.compatibility import stored  # slow to import (NumPy, gguf), and needed only where there are models

    asked = grammar.parse(config.kv_cache_type)
    report = stored.survey(root, asked, release.cache_types, LOOK_S, release.model_option)
    for one in report.unsuited:
        effect = f"suffers from {one.types}" if one.loads else f"will not load with {one.types}"
        own = f", or PARAMETER {release.model_option} {one.instead} in its Modelfile" if release.model_option else ""
        yield DeployWarning(
            about=", ".join(one.models),
            message=f"{effect}: {one.reason}",
            remedy=f"set deploy.kv_cache_type={one.instead} for all models{own}",
        )
    if report.skipped:
        yield DeployWarning(
            about=str(root),
            message=f"{len(report.skipped)} models are damaged or of an unknown kind: {', '.join(report.skipped[:5])}",
            remedy="`ollama pull` repairs a damaged one",
        )
    if not report.complete:
        yield DeployWarning(
            about=str(root),
            message=f"only {report.looked} models were looked at in {LOOK_S:g} s",
            remedy="`./inv quality.guard --model NAME` looks at one",
        )
