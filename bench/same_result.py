"""Whether an answer depends on what is computed beside it: `python -m bench.same_result RELEASE MODEL [MODEL ...]`.

With each cache type, greedy answers of llama-server are compared token by token with those of the same server alone
and without a draft: when the model drafts for itself, so that several tokens are verified at a time; when four answers
are computed at a time from one cache; and with other numbers of threads. f16, q8_0 and q4_0 are there to compare with.
Variables LLAMA_ARG_... and LLAMA_KV_CALIBRATION are handed on.
It measures; pytest does not collect it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from toolchain.build.release import llama_server
from toolchain.core import temporary
from toolchain.core.cachetypes import grammar
from toolchain.models.quality.samples import read_text
from toolchain.serving.cachelog import CALIBRATION
from toolchain.serving.llama_server import serve
from toolchain.validation.llama_endpoint import LlamaEndpoint

TYPES = (
    "f16",
    "q8_0",
    "q4_0",
    "turbo4",
    "turbo3",
    "turbo2",
    "q8_0:turbo4",
    "turbo4:f16",
    "f16:turbo4",
    "turbo3:turbo2",
)
TOKENS = 48
CONTEXT = 4096


def answers(
    release: Path, model: Path, cache: str, prompts: Sequence[str], arguments: Sequence[str], together: int = 1
) -> list[tuple[int, ...]]:
    """The tokens after each prompt, `together` at a time."""
    types = grammar.parse(cache)
    draft = ["--cache-type-k-draft", str(types.k), "--cache-type-v-draft", str(types.v)]
    own = [*arguments, *(draft if "--model-draft" in arguments else [])]
    environment = {name: value for name, value in os.environ.items() if name.startswith(("LLAMA_ARG_", CALIBRATION))}
    with (
        temporary.folder("same") as home,
        serve(
            llama_server(release),
            model,
            home=home,
            context=CONTEXT,
            timeout_s=600,
            cache_type=cache,
            arguments=own,
            environment=environment,
        ) as server,
        concurrent.futures.ThreadPoolExecutor(together) as pool,
    ):
        endpoint = LlamaEndpoint(server, context=CONTEXT, log=None, template=False)

        def ask(prompt: str) -> tuple[int, ...]:
            return tuple(piece.id for piece in endpoint.generate(prompt, tokens=TOKENS, reuse=False).pieces)

        return list(pool.map(ask, prompts))


def agreement(expected: Sequence[tuple[int, ...]], found: Sequence[tuple[int, ...]]) -> str:
    """How many leading tokens of each answer are equal, of how many."""
    equal = [
        next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for one, other in zip(expected, found, strict=True)
    ]
    if list(expected) == list(found):
        return "all"
    return " ".join(f"{count}/{len(one)}" for count, one in zip(equal, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--types", default=" ".join(TYPES))
    given = parser.parse_args()
    text = read_text("")
    prompts = [text[at : at + size] for at, size in ((0, 300), (9000, 500), (30000, 200), (60000, 900))]
    sys.stdout.write("| model | K and V | own draft | four at a time | one thread |\n|---|---|---|---|---|\n")
    for model in given.models:
        for cache in given.types.split():
            alone = answers(given.release, model, cache, prompts, [])
            draft = ["--model-draft", str(model), "--spec-draft-n-max", "8", "--spec-type", "draft-simple"]
            cells = [
                answers(given.release, model, cache, prompts, draft),
                answers(given.release, model, cache, prompts, ["--parallel", "4", "--kv-unified"], together=4),
                answers(given.release, model, cache, prompts, ["--threads", "1"]),
            ]
            row = [model.stem, cache, *(agreement(alone, cell) for cell in cells)]
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
