"""Needle in a haystack: facts with numbers of seven digits, hidden at five depths of a long text, and asked for.

One text holds them all, so that it is read once for eleven questions: five facts without their like (single), five of
one kind with different keys (keyed; the other four distract), and three values of one key (several). Each try has
another place of the text, other numbers, and another order. A model is asked by its chat template, or by a sentence
to continue, whichever finds more at the shortest context under the baseline.

Only what the baseline finds, and finds surely, is asked of the candidate: where the baseline's own lead is below
`needles.SURE` nats, the order of its batches alone can change the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models.memory import gguf
from .. import fixed
from ..answers import Answer, Rendered, ask, lead_of, rendered
from ..endpoint import Endpoint
from ..found import judged
from ..haystack import count, fit, hide, looped
from ..needles import DEPTHS, FORMS, Cell, Document, Question, hidden, right
from ..plan import SIDES, Side
from ..result import TestResult
from ..trial import Progress, Trial

_ANSWER_TOKENS = 64
_LINE = ("\n",)
"""ends a continued sentence"""
_THINKING_TOKENS = 1024
_SPARE_TOKENS = 16
_FEWEST_TOKENS = 128
_MOST_READ = 65536
"""tokens of one context, that the tries of a side may read"""
_MOST_TRIES = 3


def tries(context: int) -> int:
    """How many texts of this length are read."""
    return max(1, min(_MOST_TRIES, _MOST_READ // context))


def measure(trial: Trial) -> TestResult:
    """The needles of all contexts of the plan, under both sides."""
    cells, notes, form = list[Cell](), list[str](), ""
    contexts = trial.plan.contexts
    total = sum(tries(one) for one in contexts) * len(SIDES) * (2 * len(DEPTHS) + 1)
    with trial.progress("needle", total) as progress:
        for context in contexts:
            asker = _Asker(trial, context, progress)
            if asker.room < _FEWEST_TOKENS:
                notes.append(f"{context} tokens: not asked, for the questions leave {max(asker.room, 0)} for a text")
                continue
            form = form or asker.best_form()
            found = asker.cells(form)
            cells += found
            if not any(one.found[0] for one in found):
                notes.append(f"{context} tokens and beyond: not asked, for the baseline finds nothing")
                break
    return judged(cells, (*notes, *_notes(trial, form)))


class _Asker:
    """Asks both sides at one context."""

    def __init__(self, trial: Trial, context: int, progress: Progress) -> None:
        self._trial, self._context, self._progress = trial, context, progress
        self._rendered = trial.kept("needle/chat", Rendered, lambda: rendered(self._baseline()))
        thinks = self._rendered.thinking or _may_think(trial)
        self._tokens = {"chat": _THINKING_TOKENS if thinks else _ANSWER_TOKENS, "plain": _ANSWER_TOKENS}
        key = f"needle/room/{context}"
        self.room = trial.kept(key, int, self._measured_room)

    def _baseline(self) -> Endpoint:
        return self._trial.at("baseline", self._context)

    def _measured_room(self) -> int:
        """Tokens that are left for the text."""
        facts, questions = hidden(self._trial.plan.seed, self._context, 0)
        longest = max((one.question for one in questions), key=len)
        around = "\n\n".join([self._wrapped("chat", "", longest), *(fact for _, fact in facts)])
        needed = count(self._baseline(), around) + 3 * len(facts)  # the line ends around each
        return self._context - needed - max(self._tokens.values()) - _SPARE_TOKENS

    def best_form(self) -> str:
        """How the model is asked: chat or plain, by what the baseline finds in the first text."""
        if not self._rendered.templated:
            return "plain"
        document = self._document(0)
        by = {form: sum(self._found("baseline", 0, one, form)[0] for one in document.questions) for form in FORMS}
        return max(FORMS, key=lambda form: by[form])

    def cells(self, form: str) -> list[Cell]:
        """All cells of this context. The candidate is not asked where the baseline finds nothing."""
        answered: dict[Side, dict[tuple[int, str], tuple[bool, Answer]]] = {"baseline": {}, "candidate": {}}
        documents = [self._document(attempt) for attempt in range(tries(self._context))]
        for side in SIDES:
            if side == "candidate" and not any(found for found, _ in answered["baseline"].values()):
                break
            for attempt, document in enumerate(documents):
                for one in document.questions:
                    answered[side][attempt, one.key] = self._found(side, attempt, one, form)
        return [
            self._cell(attempt, one, answered)
            for attempt, document in enumerate(documents)
            for one in document.questions
        ]

    def _cell(
        self, attempt: int, one: Question, answered: dict[Side, dict[tuple[int, str], tuple[bool, Answer]]]
    ) -> Cell:
        found, answer = answered["baseline"][attempt, one.key]
        leads = [lead for number in one.numbers if (lead := lead_of(answer, number)) is not None]
        other = answered["candidate"].get((attempt, one.key))
        return Cell(
            context=self._context,
            attempt=attempt,
            question=one,
            found=(found, other[0] if other else False),
            lead=min(leads, default=None),
            said=other[1].text if other else "",
        )

    def _found(self, side: Side, attempt: int, one: Question, form: str) -> tuple[bool, Answer]:
        """Whether a side's answer is right, and the answer."""
        key = f"needle/{side}/{self._context}/{attempt}/{one.key}-{form}"
        measured = not self._trial.store.has(key)
        answer = self._trial.kept(key, Answer, lambda: self._answer(side, attempt, one, form))
        self._progress.advance(f"{side}, {self._context} tokens", measured=measured)
        return right(answer.text, one.numbers, form=form, thinking=self._rendered.thinking), answer

    def _answer(self, side: Side, attempt: int, one: Question, form: str) -> Answer:
        endpoint = self._trial.at(side, self._context)
        prompt = self._wrapped(form, self._document(attempt).text, one.question if form == "chat" else one.continued)
        stop = self._rendered.stop if form == "chat" else _LINE
        return ask(endpoint, prompt, tokens=self._tokens[form], stop=stop)

    def _wrapped(self, form: str, text: str, question: str) -> str:
        if form == "plain":
            return f"{text}\n\n{question}"
        chat = fixed.needles().chat
        return self._rendered.around(chat.before + text + chat.after.format(question=question))

    def _document(self, attempt: int) -> Document:
        key = f"needle/text/{self._context}/{attempt}"
        return self._trial.kept(key, Document, lambda: self._written(attempt))

    def _written(self, attempt: int) -> Document:
        plan = self._trial.plan
        text = plan.text.read_text(encoding="utf-8")
        long = looped(text, 8 * self.room, f"{plan.seed}/{self._context}/{attempt}")
        cut = fit(self._baseline(), long, self.room)
        facts, questions = hidden(plan.seed, self._context, attempt)
        return Document(text=hide(cut, facts), tokens=self.room, questions=questions)


def _may_think(trial: Trial) -> bool:
    template = str(gguf.load(str(trial.plan.model)).metadata.get("tokenizer.chat_template", ""))
    return "<think" in template or "<|channel|>" in template


def _notes(trial: Trial, form: str) -> Iterator[str]:
    asked = {"chat": "by the chat template", "plain": "by a sentence to continue"}
    if form:
        yield f"asked {asked[form]}, which finds most under the baseline; greedy"
    yield (
        "one text is read for its eleven questions; the beginning that they have in common comes from the server's "
        "cache, whose type is the one under test"
    )
    if trial.plan.text_bytes < 4 * max(trial.plan.contexts):
        yield f"the text of {trial.plan.text_bytes} bytes is repeated where a context needs more"
