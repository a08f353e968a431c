"""The ten fixed prompts, under both sides: automatic checks, and pairs of answers for a human's verdict.

Each prompt is answered greedily, and once more with a seed at a temperature. Both sides get the same rendered prompt.
The verdict is a human's: no worse on at least nine of ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...core.records import record
from ...models.quality.samples import read_text
from .. import fixed
from ..answers import Answer, ChatFrame, ask, chat_frame, may_think, spoken
from ..checks import failures
from ..haystack import count, fit, hide, looped
from ..judgement import Judgement, judged
from ..plan import SIDES, Side
from ..result import Figure, Pair, Table, TestResult
from ..trial import Progress, Trial

NAME = "prompts"
DOCUMENT = "{document}"
SIGNED = "The review of the draft was signed by Ingeborg Halvorsen on the ninth of May."
"""what the long prompt asks for"""
_SIGNED_AT = 0.4
DOCUMENT_TOKENS = 20_000
_LONG_CONTEXT = 21_504
"""tokens: the document, its prompt and the answer"""
_THINKING_TOKENS = 2048
_SPARE_TOKENS = 64
HOW: Mapping[str, float] = {"greedy": 0.0, "seeded": 0.7}
"""temperatures"""

Answers = dict[tuple[Side, str, str], Answer]
Failed = Mapping[tuple[Side, str, str], tuple[str, ...]]
"""by side, prompt and how it was answered"""


@record
class Asked:
    """A prompt as it is sent. `document_tokens` are those of its document, 0 without one."""

    text: str
    context: int
    tokens: int
    document_tokens: int


def measure(trial: Trial) -> TestResult:
    """The answers of both sides to all prompts, checked and paired."""
    ten = fixed.prompts()
    chat = trial.kept("prompts/chat", ChatFrame, lambda: chat_frame(trial.at("baseline")))
    asked, answers = dict[str, Asked](), Answers()
    with trial.progress(NAME, len(ten) * len(HOW) * len(SIDES)) as progress:
        for long in (False, True):  # the long one wants a context of its own
            some = [one for one in ten if (DOCUMENT in one.text) is long]
            asked |= {one.key: _asked(trial, one, chat) for one in some}
            for side in SIDES:
                for one in some:
                    answers |= _answers(trial, side, one, asked[one.key], chat, progress)
    failed = {
        key: failures(_checks(ten, key[1]), spoken(answer.text, thinking=chat.thinking), stop=answer.stop)
        for key, answer in answers.items()
    }
    result = TestResult(
        test=NAME,
        verdict="undecided",
        summary="",
        figures=tuple(_figures(failed)),
        notes=tuple(_notes(chat, asked)),
        tables=(_table(ten, failed),),
        pairs=tuple(_pair(one, asked[one.key], answers, failed, chat) for one in ten),
    )
    return judged(result, Judgement.read(trial.store.folder))


def _checks(ten: Sequence[fixed.Prompt], key: str) -> tuple[str, ...]:
    return next(one.checks for one in ten if one.key == key)


def _asked(trial: Trial, one: fixed.Prompt, chat: ChatFrame) -> Asked:
    return trial.kept(f"prompts/asked/{one.key}", Asked, lambda: _rendered(trial, one, chat))


def _rendered(trial: Trial, one: fixed.Prompt, chat: ChatFrame) -> Asked:
    """The prompt; its document is cut to what the model bears."""
    answer = one.tokens + (_THINKING_TOKENS if chat.thinking or may_think(trial.plan.model) else 0)
    if DOCUMENT not in one.text:
        context = trial.plan.working_context
        return Asked(text=chat.around(one.text), context=context, tokens=answer, document_tokens=0)
    context = min(_LONG_CONTEXT + answer - one.tokens, trial.plan.trained_context)
    endpoint = trial.at("baseline", context)
    around = count(endpoint, chat.around(one.text.replace(DOCUMENT, SIGNED)))
    tokens = min(DOCUMENT_TOKENS, context - around - answer - _SPARE_TOKENS)
    long = fit(endpoint, looped(read_text(""), 8 * tokens, f"{NAME}/{trial.plan.seed}"), tokens)
    text = one.text.replace(DOCUMENT, hide(long, [(_SIGNED_AT, SIGNED)]))
    return Asked(text=chat.around(text), context=context, tokens=answer, document_tokens=tokens)


def _answers(trial: Trial, side: Side, one: fixed.Prompt, asked: Asked, chat: ChatFrame, progress: Progress) -> Answers:
    """A side's answers to one prompt. The seeded one reuses the prompt that was read for the greedy one."""
    found = Answers()
    for how, temperature in HOW.items():
        key = f"prompts/{side}/{one.key}/{how}"
        measured = not trial.store.has(key)
        found[side, one.key, how] = trial.kept(
            key,
            Answer,
            lambda heat=temperature: ask(  # type: ignore[misc]
                trial.at(side, asked.context),
                asked.text,
                tokens=asked.tokens,
                seed=trial.plan.seed,
                temperature=heat,
                stop=chat.stop,
                reuse=heat > 0,
            ),
        )
        progress.advance(f"{side}, {one.category}", measured=measured)
    return found


def _pair(
    one: fixed.Prompt,
    asked: Asked,
    answers: Answers,
    failed: Failed,
    chat: ChatFrame,
) -> Pair:
    said = dict[Side, str]()
    for side in SIDES:
        each = {how: spoken(answers[side, one.key, how].text, thinking=chat.thinking) for how in HOW}
        said[side] = "\n\n".join(f"[{how}]\n{text}" for how, text in each.items())
    return Pair(
        key=one.key,
        title=one.category,
        prompt=one.text.replace(DOCUMENT, f"[a text of about {asked.document_tokens} tokens]"),
        baseline=said["baseline"],
        candidate=said["candidate"],
        checks=tuple(
            f"{how}, {side}: {', '.join(failed[side, one.key, how]) or 'ok'}" for how in HOW for side in SIDES
        ),
    )


def _figures(failed: Failed) -> Iterator[Figure]:
    """Answers that fail an automatic check, and those that fail one which the other side passes."""
    base, other = ({key[1:]: set(why) for key, why in failed.items() if key[0] == side} for side in SIDES)
    name = f"answers of {len(base)} that fail an automatic check"
    yield Figure(name=name, baseline=_count(base.values()), candidate=_count(other.values()))
    yield Figure(
        name=f"{name} which the other side passes",
        baseline=_count(base[key] - other[key] for key in base),
        candidate=_count(other[key] - base[key] for key in base),
    )


def _count(each: Iterable[set[str]]) -> float:
    return float(sum(map(bool, each)))


def _table(ten: Sequence[fixed.Prompt], failed: Failed) -> Table:
    rows = []
    for one in ten:
        for how in HOW:
            base, other = (failed[side, one.key, how] for side in SIDES)
            worse = ", ".join(check for check in other if check not in base)
            rows.append((one.key, one.category, how, ", ".join(base) or "ok", ", ".join(other) or "ok", worse))
    return Table(
        title="Automatic checks: what an answer fails",
        header=("prompt", "category", "answer", "baseline", "candidate", "the candidate alone"),
        rows=tuple(rows),
    )


def _notes(chat: ChatFrame, asked: Mapping[str, Asked]) -> Iterator[str]:
    how = ", ".join(f"{name} (temperature {heat:g})" for name, heat in HOW.items())
    yield f"each prompt is answered {len(HOW)} times: {how}"
    if not chat.templated:
        yield "the model has no chat template: the prompts are put as a plain transcript"
    for one in asked.values():
        if 0 < one.document_tokens < DOCUMENT_TOKENS:
            yield (
                f"the long prompt is cut from {DOCUMENT_TOKENS} to about {one.document_tokens} tokens: the model "
                f"bears {one.context}"
            )
