"""The fixed prompts of the tests that decode greedily: chats, plain texts to go on with, and questions with variants.

They never change, so that two validations stay comparable. `sha256` is that of them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.records import record, sha256_bytes, to_json

CHATS = {
    "explain": "Explain in three sentences why the sky is blue.",
    "list": "List five fruits that grow in Spain, one per line.",
    "code": "Write a Python function that returns the largest number of a list, without using max().",
    "letter": "Write a short letter to a landlord about a broken heater.",
    "arithmetic": "A train leaves at 14:20 and arrives at 17:05. How long does it travel? Show your steps.",
    "translate": "Translate into French: The library closes at six, but the garden stays open until nine.",
    "story": "Begin a story about a lighthouse keeper who finds a map.",
    "summary": "Summarize in one sentence: Bees carry pollen from flower to flower. Without them many plants would "
    "bear no fruit, and farmers would have to do that work by hand.",
}
TEXTS = {
    "encyclopedia": "The Danube is the second longest river of Europe. It rises in the Black Forest and flows through "
    "ten countries before it reaches",
    "program": "def binary_search(items, wanted):\n    low, high = 0, len(items) - 1\n    while low <= high:\n",
    "dialogue": '"You are late," said Margaret without looking up from her book. The boy put down his bag and',
    "table": "| city | country | river |\n|---|---|---|\n| Vienna | Austria | Danube |\n| Paris | France | Seine |\n|",
    "recipe": "To make a simple bread you need flour, water, salt and yeast. First mix the flour and the salt. Then",
    "report": "The committee met on Tuesday. It heard three reports, on the budget, on the school roof and on the",
}


@record
class Question:
    """A question and what it is changed to by hand; empty where that does not apply."""

    name: str
    text: str
    paraphrase: str
    reordered: str = ""
    """its list in another order"""
    renamed: str = ""
    """with another name"""

    def variants(self) -> Iterator[tuple[str, str]]:
        """The kind and text of each change."""
        made = {
            "typo": _typo(self.text),
            "case": self.text[0].lower() + self.text[1:],
            "space": self.text.replace(" ", "  ", 1),
            "paraphrase": self.paraphrase,
            "order": self.reordered,
            "name": self.renamed,
        }
        return ((kind, text) for kind, text in made.items() if text)


QUESTIONS = (
    Question(
        name="animals",
        text="Which of these animals can fly: eagle, horse, bat, dolphin?",
        paraphrase="Tell me which of these animals are able to fly: eagle, horse, bat, dolphin.",
        reordered="Which of these animals can fly: dolphin, bat, horse, eagle?",
    ),
    Question(
        name="apples",
        text="Peter has twelve apples and gives away five. How many apples are left?",
        paraphrase="Peter owns twelve apples. He hands five of them to others. How many does he still have?",
        renamed="Maria has twelve apples and gives away five. How many apples are left?",
    ),
    Question(
        name="capital",
        text="What is the capital of Italy, and on which river does it lie?",
        paraphrase="Name the capital of Italy and the river that flows through it.",
    ),
    Question(
        name="shopping",
        text="Anna buys bread, milk, cheese and apples. Which of these are made from milk?",
        paraphrase="Bread, milk, cheese and apples are what Anna buys. Which ones come from milk?",
        reordered="Anna buys apples, cheese, milk and bread. Which of these are made from milk?",
        renamed="Thomas buys bread, milk, cheese and apples. Which of these are made from milk?",
    ),
    Question(
        name="water",
        text="Describe how water becomes ice when it gets cold.",
        paraphrase="Explain what happens to water as it freezes.",
    ),
    Question(
        name="meeting",
        text="Write a polite note from Daniel that moves a meeting from Monday to Thursday.",
        paraphrase="Please draft a courteous message in which Daniel reschedules a meeting from Monday to Thursday.",
        renamed="Write a polite note from Sofia that moves a meeting from Monday to Thursday.",
    ),
)


def sha256() -> str:
    """Digest of all of them."""
    questions = "".join(to_json(one) for one in QUESTIONS)
    return sha256_bytes("\0".join((*CHATS.values(), *TEXTS.values(), questions)).encode())


def _typo(text: str) -> str:
    """The longest word with two of its inner letters exchanged: the first neighbours that differ."""
    word = max(text.split(), key=len)
    at = next(place for place in range(1, len(word)) if word[place] != word[place + 1])
    return text.replace(word, word[:at] + word[at + 1] + word[at] + word[at + 2 :], 1)
