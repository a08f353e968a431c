"""The effect of a cache type on a model's predictions, measured on the llama-server that will run it.

The server reads a text a few tokens at a time and returns the probabilities of the next token after each step: once
with an f16 cache, and once with each type on trial. Nothing is assumed about errors; keys and values both count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...core import temporary
from ...core.config import Config
from ...core.errors import ServerFailed, TextTooShort, VerificationFailed
from ...core.records import record
from ...serving.cachelog import objection
from ...serving.llama_server import LlamaServer, serve
from ..quality.measure import Estimate

K = TypeVar("K", int, str)
POSITIONS = 64
FEWEST_TOKENS = 256
LISTED = 256
"""number of tokens whose probabilities are compared singly; the rest counts as one, so the KL is a lower bound"""
_ROOM = 16


@record
class Prediction:
    """Natural logarithms of the probabilities of the likeliest tokens, by token id."""

    listed: Mapping[int, float]


def predictions(
    server: Path,
    model: Path,
    text: str,
    *,
    cache: str,
    context: int,
    config: Config,
    tokens: int,
    then: Callable[[LlamaServer], None] = lambda _: None,
) -> tuple[Prediction, ...]:
    """The model's predictions at up to `POSITIONS` places in the second half of the text's first `tokens` tokens.

    `then` is called with the server once its cache has the text. Raises `TextTooShort`, `VerificationFailed` when the
    server's log states another cache than the requested one, and the errors of `toolchain.serving.llama_server.serve`.
    """
    with temporary.folder("trial") as home:
        size = min(tokens, context - _ROOM)
        with serve(
            server,
            model,
            home=home,
            context=size + _ROOM,
            timeout_s=config.verify.timeout_s,
            cache_type=cache,
            environment=config.deploy.server_environment,
        ) as running:
            read = running.tokens(text)
            if len(read) < FEWEST_TOKENS:
                raise TextTooShort(
                    f"the text has {len(read)} tokens, {FEWEST_TOKENS} are needed", hint="use a longer one: --text"
                )
            read = read[:size]
            step = max(1, len(read) // (2 * POSITIONS))
            places = range(len(read) - step * min(POSITIONS, len(read) // (2 * step)) + step, len(read) + 1, step)
            found = tuple(predict(running, read[:place]) for place in places)
            _check_cache(home / "server.log", cache, config.deploy.server_environment)
            then(running)
            return found


def divergence(exact: Sequence[Prediction], rough: Sequence[Prediction]) -> Estimate:
    """Mean KL of `rough` from `exact` in nats, with its standard error. Tokens that either one omits count as one."""
    found = [position_divergence(a.listed, b.listed) for a, b in zip(exact, rough, strict=True)]
    return Estimate(mean=float(np.mean(found)), error=float(np.std(found, ddof=1) / math.sqrt(len(found))))


def predict(server: LlamaServer, prompt: Sequence[int]) -> Prediction:
    """The prediction of the token after these. Raises `ServerFailed`."""
    body = {"prompt": list(prompt), "n_predict": 1, "cache_prompt": True, "temperature": 0, "n_probs": LISTED}
    answer = server.complete(body)
    if not answer.completion_probabilities:
        raise ServerFailed(f"{server.url}/completion: the answer contains no probabilities")
    return Prediction(listed={one.id: one.logprob for one in answer.completion_probabilities[0].top_logprobs})


def position_divergence(exact: Mapping[K, float], rough: Mapping[K, float]) -> float:
    """KL of `rough` from `exact` in nats at one position: logarithms of probabilities by token; what either one omits
    counts as one token, so it is a lower bound."""
    both = [token for token in exact if token in rough and math.isfinite(exact[token]) and math.isfinite(rough[token])]
    p, q = np.exp([exact[token] for token in both]), np.exp([rough[token] for token in both])
    rest_p, rest_q = max(1 - float(p.sum()), 0.0), max(1 - float(q.sum()), 1e-12)
    rest = rest_p * math.log(rest_p / rest_q) if rest_p > 0 else 0.0
    return max(float(np.sum(p * np.log(p / q))) + rest, 0.0)


def _check_cache(log: Path, asked: str, environment: Mapping[str, str]) -> None:
    """Check that the log states the requested types, layer by layer if there are rules, and knows a calibration."""
    said = log.read_text(encoding="utf-8", errors="replace")
    if wrong := objection(said, asked, environment):
        raise VerificationFailed(f"{asked}: {wrong}", hint="is this a llama-server built with the series?")
