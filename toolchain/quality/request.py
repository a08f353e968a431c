"""From the flags of `./inv quality` to a measurement and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import pipeline
from ..cli import Run
from ..errors import ConfigError, ReleaseInvalid
from . import lab, report
from .lab import HEAD_SIZE, TOKENS, Selection, Source

__all__ = ["HEAD_SIZE", "TOKENS", "find_program", "measure", "names", "selection", "source"]

_DOCUMENTS = Path(__file__).resolve().parents[2]


def names(flags: Sequence[str]) -> tuple[str, ...]:
    """What a flag names that may be given several times, and with commas."""
    return tuple(name for flag in flags for name in flag.replace(",", " ").split())


def selection(
    types: Sequence[str],
    data: Sequence[str],
    seeds: Sequence[str],
    rotated: bool,
    no_rotated: bool,
    tokens: int,
    head_size: int,
) -> Selection:
    """What to measure. Raises `ConfigError` for a seed that is no whole number from 0 on."""
    numbers = []
    for seed in names(seeds) or ("0",):
        if not (seed.isascii() and seed.isdigit()):
            raise ConfigError(f"--seed {seed!r}: expected a whole number from 0 on", hint="--seed 1")
        numbers.append(int(seed))
    both = rotated == no_rotated
    return Selection(
        types=names(types),
        data=names(data),
        seeds=tuple(dict.fromkeys(numbers)),
        rotations=(True, False) if both else (rotated,),
        tokens=tokens,
        head_size=head_size,
    )


def source(run: Run, model: str, text: str, release: str, server: str) -> Source | None:
    """Where to dump from; None without a model. Raises `ConfigError` for a text that cannot be read."""
    if not model:
        return None
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(f"{path}: no such model", hint="--model names a GGUF file")
    return Source(server=find_program(run, "llama-server", server, release), model=path, text=_read(text))


def find_program(run: Run, name: str, path: str, release: str) -> Path:
    """A program of llama.cpp: the one at `path`, else that of a release. Raises `ReleaseInvalid` when there is none."""
    if path:
        found = Path(path).expanduser().absolute()
        return found / name if found.is_dir() else found
    found = pipeline.find_release(run, release) / "lib" / "ollama" / name
    if not found.is_file():
        raise ReleaseInvalid(f"{found}: not in this release", hint=f"./inv build --targets {name}")
    return found


def measure(run: Run, chosen: Selection, dumped: Source | None, out: str) -> None:
    """Run the lab, write its files, print its rows."""
    series = pipeline.load_series(run)
    found = lab.run(chosen, dumped, series, run.config, run.console, workspace=run.workspace)
    folder = Path(out).expanduser().absolute() if out else run.workspace / "quality"
    path = report.save(found, folder)
    run.console.result({"rows": found.rows}, f"{report.text(found)}\n\nreport    {path}")


def _read(text: str) -> str:
    try:
        if text:
            return Path(text).expanduser().read_text(encoding="utf-8")
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(_DOCUMENTS.glob("docs/*.md")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text {text}: cannot be read: {error}", hint="a text file in UTF-8") from error
