"""A llama-perplexity as far as a comparison goes: it keeps "logits", and prints figures in the true program's words.

The perplexity is 10 with an f16 cache, and more by the square of what the types' bits leave out. TQ_TEST_FAIL makes one
thing go wrong.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5, "turbo4": 4.25, "turbo3": 3.25, "turbo2": 2.25}
CHUNKS = 37


def _flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    fail = os.environ.get("TQ_TEST_FAIL", "")
    type_k, type_v = _flag("--cache-type-k"), _flag("--cache-type-v")
    text, logits = Path(_flag("--file")).read_text(), Path(_flag("--kl-divergence-base"))
    if fail == "crash":
        sys.exit("ggml_abort: the scripted end")
    if fail == "other-type":
        type_v = "f16"
    plain = os.environ["LLAMA_ATTN_ROT_DISABLE"] == "1" or fail == "no-rotation"
    _say(
        f"0.1 I llama_kv_cache: size =   12.00 MiB (  1024 cells,   6 layers,  2/2 seqs), "
        f"K ({type_k}):    6.00 MiB, V ({type_v}):    6.00 MiB"
    )
    for letter, kind in (("k", type_k), ("v", type_v)):
        _say(f"0.1 I llama_kv_cache: attn_rot_{letter} = {int(kind != 'f16' and not plain)}, n_embd_head_k_all = 128")
    if len(text) < 2 * int(_flag("--ctx-size")):
        _say(f"0.1 E perplexity: the data file you provided tokenizes to only {len(text)} tokens")
        return
    if "--kl-divergence" not in sys.argv:
        logits.write_text(text)
        return
    assert logits.read_text() == text
    lost = (32 - BITS[type_k] - BITS[type_v]) ** 2 / 1000 * (2 if plain else 1)
    _say(f"0.2 I kl_divergence: computing over {CHUNKS} chunks, n_ctx=64, batch_size=2048, n_seq=2")
    lost_before = logits.with_name("lost")
    if fail == "no-figures" or (fail == "lose-once" and not lost_before.exists()):
        lost_before.touch()
        return
    for number in range(1, CHUNKS + 1):  # even chunks lose more, and odd ones less
        mean = lost * (1 + 0.1 / number * (1 - number % 2))
        _say(
            f"{number:4}    {10 + mean:9.4f} ± {0.25:9.4f}    {math.log(1 + mean / 10):10.5f} ± {0.001:10.5f}"
            f"    {mean / 100:10.5f} ± {0.0001:10.5f}     4.990 ±   -nan %    {100 - mean:6.3f} ±  1.000 %"
        )
    _say("")
    _say("====== Perplexity statistics ======")
    _say(f"Mean PPL(Q)                   :  {10 + lost:.6f} ±   0.250000")
    _say("Mean PPL(base)                :  10.000000 ±   0.250000")
    _say(f"Mean PPL(Q)-PPL(base)         :   {lost:.6f} ±   {'    -nan' if fail == 'nan' else '0.010000'}")
    _say(f"Mean    KLD:   {lost / 100:.6f} ±   0.000100")
    _say("Maximum KLD:   2.318614")
    _say(f"Same top p: {100 - lost:.3f} ± 0.194 %")


if __name__ == "__main__":
    main()
