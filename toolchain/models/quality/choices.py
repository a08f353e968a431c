"""From the flags of `./inv quality` to a measurement and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...build import find_release
from ...build.release import llama_server
from ...core import extras
from ...core.cachetypes import grammar
from ...core.errors import ConfigError, ReleaseInvalid
from ...core.records import write
from ...core.run import Run
from ...series.manifest import load_series
from ..memory import geometry, gguf
from . import benchmark as lab
from . import benchmark_page, divergence
from .benchmark import Benchmark, DumpSource, Selection
from .divergence import Divergences
from .samples import read_text

SWEEPS = ("alone", "layers")


def selection(
    types: Sequence[str],
    data: Sequence[str],
    seeds: Sequence[int],
    rotated: bool,
    no_rotated: bool,
    tokens: int,
    head_size: int,
) -> Selection:
    """The selection from the flags."""
    both = rotated == no_rotated
    return Selection(
        types=tuple(types),
        data=tuple(data),
        seeds=tuple(dict.fromkeys(seeds)) or (0,),
        rotations=(True, False) if both else (rotated,),
        tokens=tokens,
        head_size=head_size,
    )


def source(run: Run, model: str, text: str, release: str, server: str) -> DumpSource | None:
    """The source of a dump; None without a model. Raises `ConfigError` for an unreadable text."""
    if not model:
        return None
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(f"{path}: no such model", hint="--model names a GGUF file")
    return DumpSource(server=find_server(run, server, release), model=path, text=read_text(text))


def find_server(run: Run, path: str, release: str) -> Path:
    """llama-server at `path` (or in that folder), else of a release."""
    if path:
        return _program(Path(path), "llama-server")
    return llama_server(find_release(run, release))


def find_perplexity(run: Run, path: str) -> Path:
    """llama-perplexity at `path` (or in that folder), else the newest one that was built. It is not in a release.

    Raises `ReleaseInvalid` when there is none.
    """
    name = "llama-perplexity"
    built = sorted(run.workspace.glob(f"build/**/bin/{name}"), key=lambda made: made.stat().st_mtime)
    found = _program(Path(path), name) if path else built[-1] if built else run.workspace / "build" / name
    if not found.is_file():
        raise ReleaseInvalid(f"{found}: no such program", hint=f"./inv build --targets {name}, or --program PATH")
    return found


def _program(path: Path, name: str) -> Path:
    found = path.expanduser().absolute()
    return found / name if found.is_dir() else found


def measure(run: Run, chosen: Selection, dumped: DumpSource | None, out: str) -> Benchmark:
    """Run the benchmark and write its files. Raises `MissingExtra` before the run."""
    extras.require("plots", "the picture of the report")
    series = load_series(run)
    found = lab.run(chosen, dumped, series, run.config, run.console, workspace=run.workspace)
    page = benchmark_page.save(found, run.output(out, "quality"))
    run.console.note(f"report: {page}")
    return found


def swept(caches: Sequence[str], sweeps: Sequence[str], layers: int) -> tuple[str, ...]:
    """`caches`, and each of them beside f16: K `alone` and V alone, and one of the model's `layers` at a time.

    Raises `ConfigError` for another sweep.
    """
    if unknown := [name for name in sweeps if name not in SWEEPS]:
        raise ConfigError(f"--sweep {unknown[0]!r} is unknown", hint=", ".join(SWEEPS))
    found: list[str] = []
    for cache in caches:
        setting, plain, _ = cache.partition(divergence.PLAIN)
        types = grammar.parse(setting)
        parts = [str(types)]
        if "alone" in sweeps:
            parts += [f"{types.k}:f16", f"f16:{types.v}"]
        if "layers" in sweeps:
            sides = zip(types.k.each(layers), types.v.each(layers), strict=True)
            parts += [f"f16,layers={number}:{k}:f16,layers={number}:{v}" for number, (k, v) in enumerate(sides)]
        found += [f"{grammar.parse(part)}{plain}" for part in parts]
    return tuple(dict.fromkeys(found))


def compare(
    run: Run,
    model: str,
    text: str,
    caches: Sequence[str],
    sweeps: Sequence[str],
    size: int,
    context: int,
    program: str,
) -> Divergences:
    """Perplexity and KL of caches on the first `size` bytes of a text; also as kl.json."""
    path = Path(model).expanduser()
    if not model or not path.is_file():
        raise ConfigError(f"{path if model else '--model'}: no such model", hint="--model names a GGUF file")
    if size < 1 or context < 1:
        raise ConfigError("--bytes and --context are positive")
    layers = len(geometry.read(gguf.load(str(path))).cached) if sweeps else 0
    words = read_text(text).encode()[:size].decode(errors="ignore").encode()
    folder, added = run.workspace / "quality", load_series(run).types
    asked = tuple(caches) or divergence.usual_caches(added)
    found = divergence.measure(
        find_perplexity(run, program),
        path,
        words,
        caches=swept(asked, sweeps, layers),
        context=context,
        added=added,
        log=folder / "kl.log",
        console=run.console,
        environment=run.config.deploy.server_environment,
    )
    write(folder / "kl.json", found)
    return found
