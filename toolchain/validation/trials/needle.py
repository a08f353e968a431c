"""Needle in a haystack: facts with numbers of seven digits, hidden at five depths of a long text, and asked for.

One text holds five facts without their like (single). Another one holds five of one kind with different keys (keyed;
the other four distract), and three values of one more key (several). Each is read once for all of its questions. Each
try has another place of the text, other numbers, and another order. A model is asked by its chat template, or by a
sentence to continue, whichever finds more at the shortest context under the baseline.

Only what the baseline finds, and finds surely, is asked of the candidate: where the baseline's own lead is below
`needles.SURE` nats, the order of its batches alone can change the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .. import fixed
from ..answers import Answer, ChatFrame, ask, chat_frame, lead_of, may_think
from ..endpoint import Endpoint
from ..found import judged
from ..haystack import count, fit, hide, looped
from ..needles import FORMS, GROUPS, SHARES, Cell, Haystack, Question, Shares, hidden, right, shares
from ..plan import SIDES, Side
from ..result import TestResult
from ..trial import Progress, Trial

_ANSWER_TOKENS = 64
_LINE = ("\n",)
"""ends a continued sentence"""
_THINKING_TOKENS = 1024
_SPARE_TOKENS = 16
_FEWEST_TOKENS = 128
_MOST_READ = 131072
"""tokens of one context, that the tries of a side may read"""
_MOST_TRIES = 3


def tries(context: int) -> int:
    """How many texts of this length are read."""
    return max(1, min(_MOST_TRIES, _MOST_READ // (len(GROUPS) * context)))


def measure(trial: Trial) -> TestResult:
    """The needles of all contexts of the plan, under both sides."""
    cells, notes, form = list[Cell](), list[str](), ""
    contexts = trial.plan.contexts
    chat = trial.kept("needle/chat", ChatFrame, lambda: chat_frame(trial.at("baseline", contexts[0])))
    total = sum(tries(one) for one in contexts) * len(SIDES) * sum(GROUPS.values())
    with trial.progress("needle", total + chat.templated * GROUPS["single"]) as progress:  # the first one in both forms
        for context in contexts:
            asker = _Asker(trial, context, chat, progress)
            if asker.room < _FEWEST_TOKENS:
                notes.append(f"{context} tokens: not asked, for the questions leave {max(asker.room, 0)} for a text")
                continue
            form = form or asker.best_form()
            found = asker.cells(form)
            cells += found
            if not any(one.found[0] for one in found):
                notes.append(f"{context} tokens and beyond: not asked, for the baseline finds nothing")
                break
    trial.kept(SHARES, Shares, lambda: shares(cells))
    return judged(cells, (*notes, *_notes(trial, form)))


class _Asked(NamedTuple):
    right: bool
    answer: Answer | None

    def lead(self, number: str) -> float | None:
        """Of the number in the answer."""
        return lead_of(self.answer, number) if self.answer else None


class _Asker:
    """Asks both sides at one context."""

    def __init__(self, trial: Trial, context: int, chat: ChatFrame, progress: Progress) -> None:
        self._trial, self._context, self._chat, self._progress = trial, context, chat, progress
        thinks = chat.thinking or may_think(trial.plan.model)
        self._tokens = {"chat": _THINKING_TOKENS if thinks else _ANSWER_TOKENS, "plain": _ANSWER_TOKENS}
        key = f"needle/room/{context}"
        self.room = trial.kept(key, int, self._measured_room)

    def _baseline(self) -> Endpoint:
        return self._trial.at("baseline", self._context)

    def _measured_room(self) -> int:
        """Tokens that are left for the text."""
        facts, questions = hidden(self._trial.plan.seed, self._context, 0, "keyed")
        longest = max((one.question for one in questions), key=len)
        around = "\n\n".join([self._wrapped("chat", "", longest), *(fact for _, fact in facts)])
        needed = count(self._baseline(), around) + 3 * len(facts)  # the line ends around each
        return self._context - needed - max(self._tokens.values()) - _SPARE_TOKENS

    def best_form(self) -> str:
        """How the model is asked: chat or plain, by what the baseline finds in the first text."""
        if not self._chat.templated:
            return "plain"
        text = self._document(0, "single")
        by = {form: sum(self._asked("baseline", text, one, form).right for one in text.questions) for form in FORMS}
        return max(FORMS, key=lambda form: by[form])

    def cells(self, form: str) -> list[Cell]:
        """All cells of this context. The candidate is not asked where the baseline finds nothing."""
        texts = [self._document(attempt, group) for attempt in range(tries(self._context)) for group in GROUPS]
        asked = [(text, one) for text in texts for one in text.questions]
        base = [self._asked("baseline", text, one, form) for text, one in asked]
        if any(one.right for one in base):
            other = [self._asked("candidate", text, one, form) for text, one in asked]
        else:
            other = [_Asked(right=False, answer=None)] * len(asked)
        return [
            Cell(
                context=self._context,
                attempt=text.attempt,
                question=one,
                found=(first.right, second.right),
                lead=min((lead for number in one.numbers if (lead := first.lead(number)) is not None), default=None),
                said=second.answer.text if second.answer else "",
            )
            for (text, one), first, second in zip(asked, base, other, strict=True)
        ]

    def _asked(self, side: Side, text: Haystack, one: Question, form: str) -> _Asked:
        key = f"needle/{side}/{self._context}/{text.attempt}/{one.key}-{form}"
        measured = not self._trial.store.has(key)
        answer = self._trial.kept(key, Answer, lambda: self._answer(side, text, one, form))
        self._progress.advance(f"{side}, {self._context} tokens", measured=measured)
        return _Asked(right(answer.text, one.numbers, form=form, thinking=self._chat.thinking), answer)

    def _answer(self, side: Side, text: Haystack, one: Question, form: str) -> Answer:
        endpoint = self._trial.at(side, self._context)
        prompt = self._wrapped(form, text.text, one.question if form == "chat" else one.continued)
        stop = self._chat.stop if form == "chat" else _LINE
        return ask(endpoint, prompt, tokens=self._tokens[form], stop=stop)

    def _wrapped(self, form: str, text: str, question: str) -> str:
        if form == "plain":
            return f"{text}\n\n{question}"
        chat = fixed.needles().chat
        return self._chat.around(chat.before + text + chat.after.format(question=question))

    def _document(self, attempt: int, group: str) -> Haystack:
        key = f"needle/text/{self._context}/{attempt}-{group}"
        return self._trial.kept(key, Haystack, lambda: self._written(attempt, group))

    def _written(self, attempt: int, group: str) -> Haystack:
        plan = self._trial.plan
        text = plan.text.read_text(encoding="utf-8")
        long = looped(text, 8 * self.room, f"needle/{plan.seed}/{self._context}/{attempt}")
        cut = fit(self._baseline(), long, self.room)
        facts, questions = hidden(plan.seed, self._context, attempt, group)
        return Haystack(text=hide(cut, facts), attempt=attempt, questions=questions)


def _notes(trial: Trial, form: str) -> Iterator[str]:
    asked = {"chat": "by the chat template", "plain": "by a sentence to continue"}
    if form:
        yield f"asked {asked[form]}, which finds most under the baseline; greedy"
    yield (
        "a text is read once for all of its questions: the beginning that they have in common comes from the server's "
        "cache, whose type is the one under test"
    )
    if trial.plan.text_bytes < 4 * max(trial.plan.contexts):
        yield f"the text of {trial.plan.text_bytes} bytes is repeated where a context needs more"
