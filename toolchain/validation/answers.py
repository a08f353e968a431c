"""An answer as it is kept: what was said, how it ended, how sure the model was, and what the server had to read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..core.records import record, sha256_bytes
from ..models.memory import gguf
from .endpoint import Endpoint, Message, Piece, transcript

MARK = "(the text to be read)"
"""stands for the text while a chat is rendered"""
THINKING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_OPEN = re.compile(r"<(think|thinking|reasoning)>\s*$")
_FINAL = "<|channel|>final<|message|>"


@record
class ChatFrame:
    """A chat as the model's template renders it, around a text. `templated` is false for a plain transcript."""

    before: str
    after: str
    templated: bool

    def around(self, text: str) -> str:
        """The prompt of a chat whose only message is this text."""
        return self.before + text + self.after

    @property
    def stop(self) -> tuple[str, ...]:
        """Words that end an answer: in a transcript, the user's next turn."""
        return () if self.templated else ("\nUser:",)

    @property
    def thinking(self) -> bool:
        """Whether the template opens a thinking block that the answer begins in."""
        return bool(_OPEN.search(self.after))


@record
class Answer:
    """One answer. `leads` are, for each token with its text, the nats by which it led over the next likeliest one."""

    prompt_sha256: str
    seed: int
    temperature: float
    text: str
    stop: str
    """as of `endpoint.Generated`"""
    leads: tuple[tuple[str, float | None], ...]
    read: int
    """prompt tokens that were read now"""
    cached: int
    """prompt tokens that were there from an earlier answer"""
    generated: int
    seconds: float


def chat_frame(endpoint: Endpoint) -> ChatFrame:
    """How this server renders a chat of one message."""
    chat = [Message(role="user", content=MARK)]
    found = endpoint.chat(chat)
    before, there, after = found.partition(MARK)
    if not there or not (before + after).strip() or found == transcript(chat):  # no template, or one that only copies
        before, _, after = transcript(chat).partition(MARK)
        return ChatFrame(before=before, after=after, templated=False)
    return ChatFrame(before=before, after=after, templated=True)


def may_think(model: Path) -> bool:
    """Whether the model's own template knows thinking blocks, so that an answer needs more tokens."""
    template = str(gguf.load(str(model)).metadata.get("tokenizer.chat_template", ""))
    return "<think" in template or "<|channel|>" in template


def ask(
    endpoint: Endpoint,
    prompt: str,
    *,
    tokens: int,
    seed: int = 1,
    temperature: float = 0.0,
    stop: Sequence[str] = (),
    reuse: bool = True,
) -> Answer:
    """The endpoint's answer. Raises `ServerFailed`."""
    found = endpoint.generate(
        prompt, tokens=tokens, seed=seed, temperature=temperature, listed=2, stop=stop, reuse=reuse
    )
    return Answer(
        prompt_sha256=sha256_bytes(prompt.encode()),
        seed=seed,
        temperature=temperature,
        text=found.text,
        stop=found.stop,
        leads=tuple((piece.text, _lead(piece)) for piece in found.pieces),
        read=found.counters.prompt,
        cached=found.counters.cached,
        generated=found.counters.generated,
        seconds=round(found.total_s, 2),
    )


def _lead(piece: Piece) -> float | None:
    """Nats between the two likeliest tokens."""
    if len(piece.top) < 2:
        return None
    return round(piece.top[0].logprob - piece.top[1].logprob, 4)


def spoken(text: str, *, thinking: bool = False) -> str:
    """An answer without its thinking blocks; empty where it never came out of one.

    With `thinking` it begins within one.
    """
    if _FINAL in text:
        return text.rpartition(_FINAL)[2].partition("<|")[0].strip()
    if thinking:
        text = f"<think>{text}"
    if thinking and "</think>" not in text and (other := re.search(r"</(thinking|reasoning)>", text)):
        text = text[other.end() :]
    text = THINKING.sub("", text)
    return re.sub(r"<(think|thinking|reasoning)>.*", "", text, flags=re.DOTALL).strip()


def lead_of(answer: Answer, part: str) -> float | None:
    """The smallest lead of the tokens that make up `part` of an answer: by so many nats another token lost."""
    said = "".join(text for text, _ in answer.leads)
    begin = said.find(part)
    if begin < 0:
        return None
    at, found = 0, list[float]()
    for text, lead in answer.leads:
        if lead is not None and at < begin + len(part) and at + len(text) > begin:
            found.append(lead)
        at += len(text)
    return min(found, default=None)
