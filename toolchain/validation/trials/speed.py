"""Speed as a client sees it, in pairs: baseline, candidate, baseline, candidate, ...

Each try reads a prompt that shares no beginning with an earlier one and generates greedily; both sides of a pair get
the same prompt, right after each other. The ratios' 95% intervals decide (`interval`); while one straddles its limit
there are further pairs, up to a bound. Pairs that something disturbed do not count, unless the operator accepts that.

    generation         tokens after the first one / seconds between the first and the last, from the stream
    time to first      seconds from the request to the first content: the prompt is read in it
    load               see `coldload`
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from ...core.records import record
from ..endpoint import Generated
from ..filling import ROOM, filling
from ..interval import Interval, of_ratios
from ..pairs import LEAST, Judged, at_most, collect
from ..plan import SIDES, Side
from ..result import Figure, TestResult, Verdict
from ..trial import Trial
from ..voids import Seen, Watch, cache_complaint, cached_tokens, log_mark, summed_up, unknown
from . import coldload

NAME = "speed"
TOKENS = 64
"""generated in each try"""
SHALLOW = 256
"""tokens of the shortest prompts"""
_DEPTHS = 3
"""contexts of the plan that are filled: the shortest, the middle and the longest"""
_WARM_UP = "A first request is slower than all others."
_MOST, _MOST_DEEP = 12, 6
"""pairs; a deep one takes its prompt's time twice"""
_SHORTEST = 8
"""tokens that an answer needs to have a speed"""
_SLOWEST, _KILL, _FIRST = 0.90, 0.75, 1.10


@record
class Try:
    """One answer: tokens, and seconds since the request. `server_s` is what the server counted for the generation,
    `prompt_s` for the prompt."""

    prompt: int
    cached: int | None
    generated: int
    first_s: float
    at_s: tuple[float, ...]
    prompt_s: float
    server_s: float

    @property
    def rate(self) -> float:
        """Generated tokens per second, from the stream."""
        spent = self.at_s[-1] - self.at_s[0]
        return (self.generated - 1) / spent if spent > 0 else math.inf

    @property
    def gaps_ms(self) -> tuple[float, ...]:
        """Milliseconds from each piece of the stream to the next."""
        return tuple(1e3 * (after - before) for before, after in zip(self.at_s, self.at_s[1:], strict=False))


@record
class Tries:
    """The same prompt on both sides, one right after the other."""

    baseline: Try
    candidate: Try
    seen: Seen


def measure(trial: Trial) -> TestResult:
    """Pairs at several depths, and loads. See the module."""
    plan = trial.plan
    verdicts: list[Verdict] = []
    figures: list[Figure] = []
    voids: list[str] = []
    notes: list[str] = []
    depths = _depths(plan.contexts)
    with trial.progress("speed", LEAST * len(depths)) as progress:
        watch = Watch(trial.observer)
        for context, depth in depths:

            def one(number: int, context: int = context, depth: int = depth) -> Tries:
                found = _tries(trial, watch, context, depth, number)
                progress.advance(f"{depth} tokens, pair {number + 1}")
                return found

            most = _MOST if depth == SHALLOW else _MOST_DEEP
            pairs, why = collect(trial, f"speed/{context}/{depth}", Tries, one, _of_tries, _of_cache, most)
            judged = _of_tries(pairs)
            verdicts += [part.verdict for part in judged]
            figures += _figures(pairs, judged, depth)
            voids += why
            notes += [f"at {depth} tokens: {len(pairs)} pairs"]
            notes += [f"unknown here: {what}" for pair in pairs for what in unknown(pair.seen)]
            if any(one.cached is None for pair in pairs for one in (pair.baseline, pair.candidate)):
                notes.append("unknown here: whether prompts came from a cache; none began like another")
        if not plan.baseline_url:
            loaded = coldload.measure(trial, watch)
            verdicts.append(loaded.verdict)
            figures += loaded.figures
            voids += loaded.voids
            notes += loaded.notes
    worst = next((one for one in ("kill", "failed", "undecided") if one in verdicts), "passed")
    return TestResult(
        test=NAME,
        verdict=_checked(worst),
        summary=_summary(figures),
        figures=tuple(figures),
        notes=tuple(dict.fromkeys((*notes, "greedy, one request at a time; Ollama and llama-server are not compared"))),
        voids=summed_up(voids),
    )


def _depths(contexts: Sequence[int]) -> list[tuple[int, int]]:
    """(context, tokens of the prompt): a short one, then some contexts filled."""
    chosen = {0, len(contexts) // 2, len(contexts) - 1} if len(contexts) > _DEPTHS else set(range(len(contexts)))
    deep = [(contexts[index], int(ROOM * contexts[index]) - TOKENS) for index in sorted(chosen)]
    return [(contexts[0], SHALLOW), *(one for one in deep if one[1] > 2 * SHALLOW)]


def _tries(trial: Trial, watch: Watch, context: int, depth: int, number: int) -> Tries:
    prompt = filling(trial, context, depth, f"{number}")
    found: dict[Side, Try] = {}
    for side in SIDES:
        trial.at(side, context)  # both are loaded before the first of them is measured, where they fit
    with watch:
        for side in SIDES:
            endpoint = trial.at(side, context)
            mark = log_mark(endpoint)
            warm = endpoint.generate(_WARM_UP, tokens=2, seed=trial.plan.seed, reuse=False)
            cached_tokens(endpoint, warm, mark)  # waits for the log, so that its line is not taken for the next one's
            mark = log_mark(endpoint)
            answer = endpoint.generate(prompt, tokens=TOKENS, seed=trial.plan.seed, reuse=False)
            found[side] = _try(answer, cached_tokens(endpoint, answer, mark))
    return Tries(baseline=found["baseline"], candidate=found["candidate"], seen=watch.seen)


def _try(answer: Generated, cached: int | None) -> Try:
    return Try(
        prompt=answer.counters.prompt,
        cached=cached,
        generated=answer.counters.generated,
        first_s=answer.first_s,
        at_s=tuple(round(piece.at_s, 6) for piece in answer.pieces) or (answer.total_s,),
        prompt_s=answer.counters.prompt_s,
        server_s=answer.counters.generated_s,
    )


def _of_tries(pairs: Sequence[Tries]) -> tuple[Judged, ...]:
    """Generation, then time to first token."""
    long = [one for one in pairs if min(one.baseline.generated, one.candidate.generated) >= _SHORTEST]
    rates = [(one.baseline.rate, one.candidate.rate) for one in long]
    first = of_ratios([(one.baseline.first_s, one.candidate.first_s) for one in pairs])
    return (
        _generation(of_ratios(rates or [(1.0, 1.0)])),
        at_most(first, _FIRST, f"<= {_FIRST:.0%} of the baseline's"),
    )


def _generation(found: Interval) -> Judged:
    limit = f">= {_SLOWEST:.0%} of the baseline's, from {found.low:.1%} to {found.high:.1%}"
    if found.low >= _SLOWEST:
        return Judged(verdict="passed", interval=found, limit=limit)
    if found.high < _KILL:
        return Judged(verdict="kill", interval=found, limit=limit)
    if found.high < _SLOWEST:
        return Judged(verdict="failed", interval=found, limit=limit, settled=found.low >= _KILL)
    return Judged(verdict="undecided", interval=found, limit=limit, settled=False)


def _of_cache(pair: Tries) -> tuple[str, ...]:
    """What was not read, but came from a cache."""
    found = tuple(why for one in (pair.baseline, pair.candidate) for why in cache_complaint(one.cached))
    if pair.baseline.prompt != pair.candidate.prompt:
        found += (f"cache: {pair.baseline.prompt} and {pair.candidate.prompt} tokens of the same prompt were read",)
    return found


def _figures(pairs: Sequence[Tries], judged: Sequence[Judged], depth: int) -> list[Figure]:
    generation, first = judged

    def both(name: str, unit: str, value: Callable[[Try], float]) -> Figure:
        sides = [[value(getattr(one, side)) for one in pairs] for side in SIDES]
        return Figure(
            name=f"{name} at {depth}",
            baseline=statistics.median(sides[0]),
            candidate=statistics.median(sides[1]),
            unit=unit,
        )

    return [
        both("generation", "tok/s", lambda one: one.rate),
        _ratio(f"generation at {depth}, ratio", generation),
        both("time to first token", "s", lambda one: one.first_s),
        _ratio(f"time to first token at {depth}, ratio", first),
        both("between tokens, median", "ms", lambda one: _quantile(one.gaps_ms, 0.5)),
        both("between tokens, 95%", "ms", lambda one: _quantile(one.gaps_ms, 0.95)),
        both("prompt, by the server", "tok/s", lambda one: _per(one.prompt - (one.cached or 0), one.prompt_s)),
        both("generation, by the server", "tok/s", lambda one: _per(one.generated, one.server_s)),
    ]


def _ratio(name: str, judged: Judged) -> Figure:
    ok = None if judged.verdict == "undecided" else judged.verdict == "passed"
    found = judged.interval
    error = found.error if math.isfinite(found.error) else None
    return Figure(name=name, baseline=1.0, candidate=found.mean, error=error, limit=judged.limit, ok=ok)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _per(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _checked(verdict: str) -> Verdict:
    found: dict[str, Verdict] = {"kill": "kill", "failed": "failed", "undecided": "undecided"}
    return found.get(verdict, "passed")


def _summary(figures: Sequence[Figure]) -> str:
    limited = [one for one in figures if one.limit]
    slowest = min((one for one in limited if one.name.startswith("generation")), key=lambda one: one.candidate or 0.0)
    missed = ", ".join(one.name for one in limited if one.ok is False)
    straddles = ", ".join(one.name for one in limited if one.ok is None)
    return (
        f"{slowest.name.removesuffix(', ratio')}: {slowest.candidate:.1%} of the baseline's tok/s"
        + (f"; missed: {missed}" if missed else "")
        + (f"; the interval contains the limit: {straddles}" if straddles else "")
    )
