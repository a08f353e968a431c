"""Cache types of several programs: `python -m bench.rivals quality|speed MODEL --program ... --out FILE`.

    --program "NAME FOLDER CACHE CACHE ..."

FOLDER has the llama-perplexity and llama-bench (or llama-sweep-bench) of a build. A CACHE is `K` or `K:V`, then
arguments and environment variables of its own, separated by commas: `q8_0`, `q6_0:q4_0,-khad`, `turbo4,NAME=VALUE`.
The first cache is the program's baseline: programs round in different ways, so each is compared with its own.

`quality` is perplexity and KL to the baseline, and the size of the cache that the program allocates, from its log.
`speed` is tokens per second after so many tokens, of all programs in turns. Every run is a line of JSON, added to
FILE; a table of all lines is printed in the end. `--lock FILE` waits for others before each run. It measures; pytest
does not collect it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CHANGED = re.compile(r"[A-Z][A-Z0-9_]*=")
SIZE = re.compile(r"(?:llama_kv_cache: size|KV self size) *= *([\d.]+) MiB")
FIGURES = {
    "ppl": r"Mean PPL\(Q\) *: *(\S+) ± *(\S+)",
    "delta": r"Mean PPL\(Q\)-PPL\(base\) *: *(\S+) ± *(\S+)",
    "kl": r"Mean +KLD: *(\S+) ± *(\S+)",
}
SWEEP = "llama-sweep-bench"
Row = dict[str, float | int | str | None]


@dataclasses.dataclass(frozen=True)
class Cache:
    """What a program is asked for."""

    name: str
    k: str
    v: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A build, and the caches to measure with it; the first is the baseline."""

    name: str
    folder: Path
    caches: tuple[Cache, ...]


def cache(text: str) -> Cache:
    """`K[:V][,ARGUMENT][,VARIABLE=VALUE]`."""
    types, *more = text.split(",")
    k, _, v = types.partition(":")
    variables = [one.partition("=") for one in more if CHANGED.match(one)]
    return Cache(
        text, k, v or k, tuple(o for o in more if not CHANGED.match(o)), tuple((n, value) for n, _, value in variables)
    )


def program(text: str) -> Program:
    """`NAME FOLDER CACHE...` of the command line."""
    words = shlex.split(text)
    if len(words) < 3:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME FOLDER CACHE...")
    return Program(words[0], Path(words[1]), tuple(map(cache, words[2:])))


def figures(said: str) -> Row:
    """Perplexity, its difference, KL with their standard errors, and MiB of the caches, from llama-perplexity's
    output. A run against its own logits can print nan as an error, which is 0. Raises `ValueError` without a KL."""
    found: Row = {"mib": round(sum(map(float, SIZE.findall(said))), 2) or None}
    for name, pattern in FIGURES.items():
        match = re.search(pattern, said)
        if not match:
            raise ValueError(f"no {name} in the output: {said[-400:]}")
        found[name] = float(match.group(1))
        found[f"{name}_error"] = 0.0 if "nan" in match.group(2) else float(match.group(2))
    return found


def speeds(said: str) -> Iterator[Row]:
    """Tokens per second by test and depth, from the JSON lines of llama-bench or llama-sweep-bench."""
    for line in said.splitlines():
        if not line.startswith("{"):
            continue
        one = json.loads(line)
        if "n_kv" in one:
            yield {"test": "generation", "depth": one["n_kv"], "rate": one["speed_tg"]}
            yield {"test": "prompt", "depth": one["n_kv"], "rate": one["speed_pp"]}
        else:
            test = "prompt" if one["n_prompt"] else "generation"
            yield {"test": test, "depth": one["n_depth"], "rate": max(one["samples_ts"])}


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Alone, as far as others ask for the same file."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], asked: Cache, lock: Path | None) -> str:
    """All that a program prints. Raises `CalledProcessError`."""
    argv = [*command, "-ctk", asked.k, "-ctv", asked.v, *asked.arguments]
    with locked(lock):
        done = subprocess.run(
            argv,
            env={**os.environ, **dict(asked.environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:])
        raise subprocess.CalledProcessError(done.returncode, argv)
    return done.stdout


def quality(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Each program's caches against its own baseline, which is among them."""
    text = folder / "text"
    text.write_bytes(given.text.read_bytes()[: given.bytes])
    for each in given.program:
        logits = folder / "logits"
        command = [str(each.folder / "llama-perplexity"), "-m", str(given.model), "-f", str(text)]
        command += ["-c", str(given.context), "-b", str(given.context), "-t", str(given.threads), "-fa", "on"]
        command += ["--kl-divergence-base", str(logits)]
        run(command, each.caches[0], given.lock)
        for asked in each.caches:
            try:
                found = figures(run([*command, "--kl-divergence"], asked, given.lock))
            except subprocess.CalledProcessError as error:
                found = {"failed": error.returncode}
            yield {"program": each.name, "cache": asked.name, **found}
        logits.unlink()


def timed(each: Program, given: argparse.Namespace) -> list[str]:
    """The command that measures speed at all depths: llama-sweep-bench where there is one, since a llama-bench beside
    it has no depth."""
    sweep = each.folder / SWEEP
    threads = ["-m", str(given.model), "-t", str(given.threads)]
    if not sweep.exists():
        depths = ",".join(map(str, given.depths))
        sizes = ["-p", str(given.prompt), "-n", str(given.generated), "-d", depths]
        return [str(each.folder / "llama-bench"), *threads, "-fa", "1", *sizes, "-r", "1", "-o", "jsonl"]
    last = max(given.depths)
    step = min((depth for depth in given.depths if depth), default=given.prompt)
    sizes = ["-c", str(last + given.prompt), "-ub", str(given.prompt), "-n", str(given.generated)]
    every = ["--sweep-stride", str(step // given.prompt), "--output-format", "jsonl"]
    return [str(sweep), *threads, "-fa", "on", *sizes, *every]


def speed(given: argparse.Namespace) -> Iterator[Row]:
    """All caches of all programs in turns, every other round in reverse."""
    turns = [(each, asked) for each in given.program for asked in each.caches]
    for number in range(given.rounds):
        for each, asked in turns if number % 2 == 0 else reversed(turns):
            said = run(timed(each, given), asked, given.lock)
            load = round(os.getloadavg()[0], 1)
            for found in speeds(said):
                if found["depth"] in given.depths:
                    yield {"program": each.name, "cache": asked.name, "round": number, "load": load, **found}


def quality_table(rows: Iterable[Row]) -> str:
    """Bits per value are those of the allocated cache, if the baseline has 16."""
    lines = ["| program | K and V | bits | KL (nats) | delta of perplexity |", "|---" * 5 + "|"]
    full: dict[object, float] = {}
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['program']} | {row['cache']} | | failed, {row['failed']} | |")
            continue
        size = float(row["mib"] or 0)
        full.setdefault(row["program"], size)
        bits = f"{16 * size / full[row['program']]:.2f}" if size else ""
        kl, delta = (f"{row[n]:{form}} ± {row[f'{n}_error']:{form[-3:]}}" for n, form in SHOWN)
        lines.append(f"| {row['program']} | {row['cache']} | {bits} | {kl} | {delta} |")
    return "\n".join(lines)


SHOWN = (("kl", ".4f"), ("delta", "+.2f"))


def speed_table(rows: Iterable[Row]) -> str:
    """Best rates, lowest and highest, and the ratios of the best to the program's and the first program's baseline.

    A busy machine makes a run slower and never faster, so the best of the rounds counts for the ratios.
    """
    found: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        key = (row["depth"], row["test"], row["program"], row["cache"])
        found.setdefault(key, []).append(float(row["rate"] or 0))
    head = "| program | K and V | test | depth | best tokens/s | least to most | to its own | to the first | runs |"
    lines, firsts = [head, "|---" * 9 + "|"], dict[tuple[object, ...], float]()
    for (depth, test, name, asked), rates in found.items():
        own = firsts.setdefault((depth, test, name), max(rates))
        first = firsts.setdefault((depth, test), max(rates))
        spread = f"{min(rates):.1f} to {max(rates):.1f}, median {statistics.median(rates):.1f}"
        ratios = f"{max(rates) / own:.2f} | {max(rates) / first:.2f}"
        lines.append(f"| {name} | {asked} | {test} | {depth} | {max(rates):.1f} | {spread} | {ratios} | {len(rates)} |")
    return "\n".join(lines)


def depths(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--program", type=program, action="append", default=[], metavar="'NAME FOLDER CACHE...'")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added")
    parser.add_argument("--lock", type=Path, help="a file to lock during each run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--text", type=Path, help="for quality")
    parser.add_argument("--bytes", type=int, default=24000, help="of the text")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--depths", type=depths, default=[0, 4096], help="tokens in the cache, comma-separated")
    parser.add_argument("--prompt", type=int, default=128, help="tokens; depths are multiples of it")
    parser.add_argument("--generated", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "quality" and given.text is None:
        parser.error("quality needs --text")
    with tempfile.TemporaryDirectory(dir=given.out.parent) as folder, given.out.open("a") as out:
        for row in speed(given) if given.what == "speed" else quality(given, Path(folder)):
            out.write(json.dumps(row) + "\n")
            out.flush()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()]
    sys.stdout.write((speed_table if given.what == "speed" else quality_table)(rows) + "\n")


if __name__ == "__main__":
    main()
