"""Greedy decoding, token by token: freely, and forced along the baseline's own tokens.

Two free decodings of one prompt differ in all that follows their first difference, which says little of the cache.
Forced, the candidate reads what the baseline wrote, one token at a time as in decoding, and its prediction of the next
token is compared at each place. Ollama takes no tokens, so there only the free half is asked.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...core.records import record
from ...models.compatibility.trial import position_divergence
from ...models.quality.measure import Estimate
from ..endpoint import Endpoint, Listed, Message
from ..plan import Side
from ..result import Figure, Line, Plot, Table, TestResult, Verdict
from ..trial import Trial
from . import starts
from .perplexity import KL_KILL, KL_MOST, SURE

NAME = "trajectory"
TOKENS = 32
"""decoded for each prompt"""
LISTED = 128
"""probabilities that are compared singly; the rest counts as one"""


@record
class Prediction:
    """The likeliest next tokens, the likeliest one first, and natural logarithms of their probabilities."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def listed(self) -> Mapping[int, float]:
        """By token."""
        return dict(zip(self.ids, self.logprobs, strict=True))


@record
class Walk:
    """A free decoding. On Ollama `tokens` are all -1, and `prompt_tokens` and `predictions` are empty."""

    prompt: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    """of the baseline alone"""
    stop: str


@record
class Forced:
    """The candidate's predictions along the baseline's tokens."""

    predictions: tuple[Prediction, ...]


@record
class Compared:
    """One prompt of both sides."""

    name: str
    baseline: str
    candidate: str
    departs: int | None
    """the first token that differs; None: none does"""
    length: int
    """of the candidate's walk in tokens"""
    equal: float
    """share of the places with equal tokens"""
    kl: tuple[float, ...]
    """forced, of each place, nats; empty on Ollama"""
    same_top: float
    """forced: share of the places with the same likeliest token"""


def measure(trial: Trial) -> TestResult:
    """Both halves over all prompts."""
    forced = trial.plan.backend == "llama-server"
    found = compared(trial)
    if not found:
        return TestResult(test=NAME, verdict="not asked", summary="the baseline answers no prompt")
    equal = _over([100 * one.equal for one in found])
    departed = [one.departs for one in found if one.departs is not None]
    at = f"first at token {statistics.median(departed):.0f} (median)" if departed else "nowhere"
    summary = f"{len(departed)} of {len(found)} decodings depart, {at}"
    free = (
        Figure(name="equal tokens, free", candidate=equal.mean, unit="%", error=equal.error),
        Figure(name="decodings that depart", candidate=len(departed), unit=f"of {len(found)}"),
    )
    table = _table(found)
    if not forced:
        note = "forced: not asked, since Ollama takes no tokens: --against llama-server"
        return TestResult(test=NAME, verdict="reported", summary=summary, figures=free, notes=(note,), tables=(table,))
    kl = _over([float(np.mean(one.kl)) for one in found if one.kl])
    top = _over([100 * one.same_top for one in found if one.kl])
    return TestResult(
        test=NAME,
        verdict=judge(kl),
        summary=f"forced KL {kl.mean:.4f} ± {kl.error:.4f}; {summary}",
        figures=(
            Figure(
                name="KL, forced",
                candidate=kl.mean,
                unit="nats",
                error=kl.error,
                limit=f"<= {KL_MOST:.3g}, over {KL_KILL:.3g} kills",
                ok=kl.mean <= KL_MOST,
            ),
            Figure(name="same top token, forced", candidate=top.mean, unit="%", error=top.error),
            *free,
        ),
        tables=(table,),
        plots=(_plot(found),),
    )


def compared(trial: Trial) -> tuple[Compared, ...]:
    """All prompts that the baseline answers, from the cells, or measured now."""
    names = [f"chat-{name}" for name in starts.CHATS] + [f"text-{name}" for name in starts.TEXTS]
    walks: dict[Side, list[Walk]] = {"baseline": [], "candidate": []}
    forced: list[Forced] = []
    with trial.progress(NAME, 2 * len(names)) as progress:
        for name in names:
            was = trial.store.has(f"{NAME}/baseline/{name}")
            walks["baseline"].append(
                trial.kept(f"{NAME}/baseline/{name}", Walk, functools.partial(_baseline, trial, name))
            )
            progress.advance(f"baseline, {name}", measured=not was)
        for name, exact in zip(names, walks["baseline"], strict=True):
            was = trial.store.has(f"{NAME}/forced/{name}")
            walk = functools.partial(_walk, trial, "candidate", exact.prompt, exact.prompt_tokens)
            walks["candidate"].append(trial.kept(f"{NAME}/candidate/{name}", Walk, walk))
            forced.append(trial.kept(f"{NAME}/forced/{name}", Forced, functools.partial(_forced, trial, exact)))
            progress.advance(f"candidate, {name}", measured=not was)
    each = zip(names, walks["baseline"], walks["candidate"], forced, strict=True)
    return tuple(_compare(*one) for one in each if one[1].tokens)


def judge(kl: Estimate) -> Verdict:
    """Killed by what is beyond the limit for sure."""
    if kl.mean - SURE * kl.error > KL_KILL:
        return "kill"
    return "passed" if kl.mean <= KL_MOST else "failed"


def departure(a: Sequence[object], b: Sequence[object]) -> int | None:
    """The first place where two sequences differ; None for equal ones."""
    for place, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return place
    return None if len(a) == len(b) else min(len(a), len(b))


def _baseline(trial: Trial, name: str) -> Walk:
    kind, _, key = name.partition("-")
    endpoint = trial.at("baseline")
    prompt = endpoint.chat([Message(role="user", content=starts.CHATS[key])]) if kind == "chat" else starts.TEXTS[key]
    return _walk(trial, "baseline", prompt, endpoint.tokenize(prompt))


def _walk(trial: Trial, side: Side, prompt: str, tokens: tuple[int, ...]) -> Walk:
    endpoint = trial.at(side)
    listed = LISTED if side == "baseline" and tokens else 0
    found = endpoint.generate(tokens or prompt, tokens=TOKENS, listed=listed)
    return Walk(
        prompt=prompt,
        prompt_tokens=tokens,
        tokens=tuple(piece.id for piece in found.pieces),
        texts=tuple(piece.text for piece in found.pieces),
        predictions=tuple(_prediction(piece.top) for piece in found.pieces) if listed else (),
        stop=found.stop,
    )


def _forced(trial: Trial, exact: Walk) -> Forced:
    endpoint = trial.at("candidate")
    return Forced(predictions=tuple(_next(endpoint, exact)) if exact.prompt_tokens else ())


def _next(endpoint: Endpoint, exact: Walk) -> Iterator[Prediction]:
    """Empty where the server withholds the token, since it is only a part of a character."""
    for place in range(len(exact.tokens)):
        found = endpoint.generate([*exact.prompt_tokens, *exact.tokens[:place]], tokens=1, listed=LISTED)
        yield _prediction(found.pieces[0].top) if found.pieces else Prediction()


def _prediction(top: Sequence[Listed]) -> Prediction:
    return Prediction(ids=tuple(one.id for one in top), logprobs=tuple(round(one.logprob, 5) for one in top))


def _compare(name: str, exact: Walk, rough: Walk, forced: Forced) -> Compared:
    a: Sequence[object] = exact.tokens if exact.prompt_tokens else exact.texts
    b: Sequence[object] = rough.tokens if exact.prompt_tokens else rough.texts
    pairs = [(p, q) for p, q in zip(exact.predictions, forced.predictions, strict=True) if p.ids and q.ids]
    return Compared(
        name=name,
        baseline="".join(exact.texts),
        candidate="".join(rough.texts),
        departs=departure(a, b),
        length=len(b),
        equal=sum(one == other for one, other in zip(a, b, strict=False)) / max(len(a), len(b)),
        kl=tuple(position_divergence(p.listed(), q.listed()) for p, q in pairs),
        same_top=sum(p.ids[0] == q.ids[0] for p, q in pairs) / max(len(pairs), 1),
    )


def _over(values: Sequence[float]) -> Estimate:
    """Mean over prompts, and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(mean=statistics.fmean(values), error=error)


def _table(found: Sequence[Compared]) -> Table:
    return Table(
        title="Greedy decoding of each prompt",
        header=("prompt", "departs at token", "equal tokens", "KL, forced", "same top, forced"),
        rows=tuple(
            (
                one.name,
                "-" if one.departs is None else str(one.departs),
                f"{100 * one.equal:.0f}%",
                f"{np.mean(one.kl):.4f}" if one.kl else "-",
                f"{100 * one.same_top:.0f}%" if one.kl else "-",
            )
            for one in found
        ),
    )


def _plot(found: Sequence[Compared]) -> Plot:
    """The mean over prompts at each place."""
    places = range(max(len(one.kl) for one in found))
    kl = tuple(float(np.mean([one.kl[place] for one in found if place < len(one.kl)])) for place in places)
    line = Line(name="candidate", x=tuple(float(place) for place in places), y=kl)
    return Plot(title="KL along the baseline's tokens", x="token", y="nats", lines=(line,), limit=KL_MOST)
