"""Speed: llama-bench with every cache type at three depths, beside what the harness counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ...core.cachetypes.table import own
from ...core.errors import MissingTool, ToolchainError
from ...core.records import record
from ...models.memory import geometry, gguf
from ...serving.probe_model import write_probe
from .. import counts, toolkit
from ..assumption import Area, Assumption, Finding
from ..bench import Bench, Evidence
from ..findings import GPU, MINIATURE, judged, require_release, untested

PROGRAM = "llama-bench"
BASE, UPSTREAM = "q8_0", ("f16", "q8_0", "q4_0")
FACTOR = 1.5
"""how far a counted ratio may be from the measured one"""
_COUNTED = ("speed.generation", "speed.prompt")
_SECONDS = 3600.0


@record
class Sizes:
    """What llama-bench is asked for: tokens of a prompt and to generate, after each number of tokens before them."""

    prompt: int
    generated: int
    depths: tuple[int, ...]
    repetitions: int


ON_A_GPU = Sizes(prompt=512, generated=64, depths=(0, 4096, 16384), repetitions=3)
ON_A_CPU = Sizes(prompt=32, generated=8, depths=(0, 128), repetitions=1)


@record
class Measured:
    """One line of llama-bench: tokens per second, and their standard deviation over the repetitions."""

    type_k: str
    n_prompt: int
    n_gen: int
    n_depth: int
    avg_ts: float
    stddev_ts: float = 0.0

    @property
    def seconds(self) -> float:
        """For a token."""
        return 1 / self.avg_ts if self.avg_ts > 0 else 0.0


Key = tuple[str, bool, int]
"""cache type, whether tokens are generated, depth"""


def _examine(bench: Bench) -> Iterator[Finding]:
    release = require_release(bench)
    if toolkit.is_miniature(bench.run.config):
        yield from (untested(one.id, MINIATURE) for one in AREA.assumptions)
        return
    sizes = ON_A_GPU if bench.on_mac else ON_A_CPU
    program, model = _program(bench), _model(bench)
    seen = tuple(bench.call(arguments(program, model, kind, sizes), timeout=_SECONDS) for kind in (*UPSTREAM, *_own()))
    found = read("\n".join(one.output for one in seen))
    yield ran(found, (*UPSTREAM, *_own()), sizes, *seen)
    if not bench.on_mac:
        yield from (untested(identifier, f"needs {GPU}") for identifier in _COUNTED)
        return
    try:
        heads = counts.heads_of(geometry.read(gguf.load(str(model))))
        tree = Path(toolkit.scratch_of(bench, release).llama_cpp)
        counted = counts.measure(bench.run, tree, (*UPSTREAM, *_own()), heads)
    except ToolchainError as error:
        yield from (untested(one, f"not counted: {error.message}", *seen) for one in _COUNTED)
        return
    yield compared("speed.generation", found, counted.generation, sizes, *seen)
    yield compared("speed.prompt", found, counted.prompt, sizes, *seen)


def arguments(program: Path, model: Path, kind: str, sizes: Sizes) -> list[str | Path]:
    """llama-bench with one cache type for K and V, every layer on the GPU if there is one."""
    words = ["-ngl", "999", "-fa", "on", "-ctk", kind, "-ctv", kind, "-r", str(sizes.repetitions), "-o", "jsonl"]
    words += ["-p", str(sizes.prompt), "-n", str(sizes.generated), "-d", ",".join(map(str, sizes.depths))]
    return [program, "-m", model, *words]


def read(output: str) -> dict[Key, Measured]:
    """The lines of llama-bench; others, and those that are damaged, are passed over."""
    found = {}
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                one = msgspec.json.decode(line, type=Measured)
            except msgspec.DecodeError:
                continue
            found[one.type_k, one.n_gen > 0, one.n_depth] = one
    return found


def ran(found: Mapping[Key, Measured], kinds: Sequence[str], sizes: Sizes, *seen: Evidence) -> Finding:
    """Whether every type generated and read prompts at every depth; how it compares with f16 is in the reason."""
    wanted = [(kind, generated, depth) for kind in kinds for generated in (True, False) for depth in sizes.depths]
    absent = [f"{kind} at {depth}{'' if generated else ', prompt'}" for kind, generated, depth in wanted
              if (kind, generated, depth) not in found]  # fmt: skip
    if absent:
        failed = [one for one in seen if one.code != 0]
        said = f"; ended with {failed[0].code}: {failed[0].output.strip()[-200:]}" if failed else ""
        return judged("speed.runs", False, f"no number for {', '.join(absent[:6])}{said}", *seen)
    deepest = sizes.depths[-1]
    ratios = [(kind, _ratio(found, kind, True, deepest), _ratio(found, kind, False, deepest)) for kind in kinds[1:]]
    rows = [f"{kind} {generated} and {prompt}" for kind, generated, prompt in ratios]
    base = found[kinds[0], True, deepest].avg_ts, found[kinds[0], False, deepest].avg_ts
    reason = f"at depth {deepest} {kinds[0]} generates {base[0]:.1f} tokens/s and reads {base[1]:.1f}; of that "
    return judged("speed.runs", True, reason + ", ".join(rows), *seen)


def _ratio(found: Mapping[Key, Measured], kind: str, generated: bool, depth: int) -> str:
    base = found[UPSTREAM[0], generated, depth].avg_ts
    return f"{found[kind, generated, depth].avg_ts / base:.0%}" if base else "?"


def compared(
    identifier: str, found: Mapping[Key, Measured], counted: Mapping[str, float], sizes: Sizes, *seen: Evidence
) -> Finding:
    """Attention's time at the deepest depth, as the difference from none, by type and relative to q8_0, beside what was
    counted for it."""
    generated, first, last = identifier == "speed.generation", sizes.depths[0], sizes.depths[-1]
    spent = {
        kind: found[kind, generated, last].seconds - found[kind, generated, first].seconds
        for kind in counted
        if (kind, generated, last) in found and (kind, generated, first) in found
    }
    if spent.get(BASE, 0.0) <= 0 or counted.get(BASE, 0.0) <= 0:
        return untested(identifier, f"attention over {BASE} took no measurable time at depth {last}", *seen)
    rows, wrong = [], []
    for kind in spent:
        measured, expected = spent[kind] / spent[BASE], counted[kind] / counted[BASE]
        row = f"{kind} {measured:.2f}, counted {expected:.2f}"
        rows.append(row)
        if not expected / FACTOR <= measured <= expected * FACTOR:
            wrong.append(row)
    reason = f"time of attention at depth {last} relative to {BASE}: {'; '.join(wrong or rows)}"
    return judged(identifier, not wrong, reason, *seen)


def _own() -> tuple[str, ...]:
    return tuple(kind.name for kind in own())


def _program(bench: Bench) -> Path:
    found = sorted(bench.run.workspace.glob(f"build/*/llama-server/bin/{PROGRAM}"))
    if not found:
        hint = f"./inv build --targets {PROGRAM}"
        raise MissingTool(f"{PROGRAM}: not in the build of {bench.run.workspace}", hint=hint)
    return found[-1]


def _model(bench: Bench) -> Path:
    """The user's, else a random one whose attention is most of its work."""
    if named := toolkit.model_of(bench.run.config):
        return named
    path = bench.folder / "speed.gguf"
    write_probe(path, head_size=128, heads=8, kv_heads=2, layers=8, context=32768, seed=20260501)
    return path


AREA = Area(
    name="speed",
    assumptions=(
        Assumption(
            id="speed.runs",
            statement="llama-bench generates and reads prompts with every cache type at every depth.",
            how="llama-bench with f16, q8_0, q4_0 and our types for K and V, at depths 0, 4096 and 16384 on a GPU.",
        ),
        Assumption(
            id="speed.generation",
            statement=f"Generating, attention's time relative to {BASE} is within a factor of {FACTOR:g} of the count.",
            needs=GPU,
            how="llama-bench's time for a token at depth 16384 without that at depth 0, beside the harness's counts.",
        ),
        Assumption(
            id="speed.prompt",
            statement=f"Reading a prompt, attention's time relative to {BASE} is within a factor of {FACTOR:g} of the "
            "count.",
            needs=GPU,
            how="As for generation, with 512 tokens at once.",
        ),
    ),
    examine=_examine,
)
