"""A llama-perplexity as far as a comparison goes: it keeps "logits", and prints figures in the true program's words.

The perplexity is 10 with an f16 cache. What a cache loses is a floor, where any of it is quantized, and the sum over
its layers, and over K and V: a share of the layer times the noise of the type, a quarter for each bit. True losses add
up only while they are small, and have errors. Every layer has an equal share, but where TQ_TEST_SHARES lists those of K
and of V of each layer, as in 3,1:0.5,2; it also gives the model's layers. A row of K or V has 64 values. Chunks of the
text differ by a fixed pattern. TQ_TEST_FAIL makes one thing go wrong.
"""

from __future__ import annotations

import math
import os
import re
import signal
import struct
import sys
from itertools import groupby
from pathlib import Path

BITS = {
    "f16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_0": 4.5,
    "turbo5": 5.25,
    "turbo4": 4.25,
    "turbo3": 3.25,
    "turbo2": 2.25,
}
FLOOR = 0.1
CHUNKS = 36
PATTERN = (0.5, 1.0, 1.5)
"""of the chunks' losses"""
LAYERS = 6
VALUES = 64
_RULE = re.compile(r"layers=(\d+)(?:-(\d+))?:(\w+)")


def noise(name: str) -> float:
    """What a type loses, for a share of 1."""
    return 0.0 if name == "f16" else 100 * 4.0 ** -BITS[name]


def shares() -> tuple[list[float], list[float]]:
    """Of K and of V, by layer."""
    k, _, v = os.environ.get("TQ_TEST_SHARES", "").partition(":")
    if not k:
        return [2 / LAYERS] * LAYERS, [2 / LAYERS] * LAYERS
    return [float(one) for one in k.split(",")], [float(one) for one in v.split(",")]


def _types(setting: str, layers: int) -> list[str]:
    found = [setting.partition(",")[0]] * layers
    for low, high, name in _RULE.findall(setting):
        for layer in range(int(low), int(high or low) + 1):
            found[layer] = name
    return found


def _flag(name: str, otherwise: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else otherwise


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _say_cache(each: dict[str, list[str]], streams: int, *, plain: bool) -> None:
    """The log of one cache, with the layers of each type where there are rules."""
    context = -(-int(_flag("--ctx-size")) // 256) * 256
    layers = len(each["K"])
    row = VALUES * context * streams / 8 / (1 << 20) * (1.1 if os.environ.get("TQ_TEST_FAIL") == "other-size" else 1)
    mib = {side: sum(BITS[name] for name in types) * row for side, types in each.items()}
    names = {side: "+".join(dict.fromkeys(types)) for side, types in each.items()}
    _say(
        f"0.1 I llama_kv_cache: size = {sum(mib.values()):7.2f} MiB ({context:6} cells, {layers:3} layers,  "
        f"{streams}/{streams} seqs), K ({names['K']}): {mib['K']:7.2f} MiB, V ({names['V']}): {mib['V']:7.2f} MiB"
    )
    if any(len(set(types)) > 1 for types in each.values()):
        for side, types in each.items():
            for name, held in groupby(sorted(enumerate(types), key=lambda one: (one[1], one[0])), lambda one: one[1]):
                numbers = [layer for layer, _ in held]
                _say(
                    f"0.1 I llama_kv_cache: {side} of attention layers {','.join(map(str, numbers))} (of {layers}): "
                    f"{name}, {BITS[name] * row * len(numbers):.2f} MiB"
                )
    for side, types in each.items():
        rotated = any(name != "f16" for name in types) and not plain
        _say(f"0.1 I llama_kv_cache: attn_rot_{side.lower()} = {int(rotated)}, n_embd_head_k_all = 64")


def main() -> None:
    fail = os.environ.get("TQ_TEST_FAIL", "")
    if fail in ("crash", f"crash at {_flag('--cache-type-k')}"):
        sys.exit("ggml_abort: the scripted end")
    if fail == "illegal":
        os.kill(os.getpid(), signal.SIGILL)
    share_k, share_v = shares()
    each = {
        "K": _types(_flag("--cache-type-k"), len(share_k)),
        "V": _types(_flag("--cache-type-v"), len(share_v)),
    }
    if fail == "other-type":
        each["V"] = ["f16"] * len(share_v)
    plain = os.environ["LLAMA_ATTN_ROT_DISABLE"] == "1" or fail == "no-rotation"
    context = int(_flag("--ctx-size"))
    _say_cache(each, max(1, int(_flag("--batch-size", "2048")) // context), plain=plain)
    text = Path(_flag("--file")).read_text()
    if len(text) < 2 * context:
        _say(f"0.1 E perplexity: the data file you provided tokenizes to only {len(text)} tokens")
        return
    logits = Path(_flag("--kl-divergence-base"))
    if "--kl-divergence" not in sys.argv:
        chunks = min(int(_flag("--chunks", "-1")) % 10**6, CHUNKS)
        body = bytes(chunks * (4 * context + 2 * 6 * (context - 1 - context // 2)))
        written = struct.pack("=8sIii", b"_logits_", context, 2, chunks) + body
        logits.write_bytes(written[: len(written) // 2] if fail == "disk-full" else written)
        return
    magic, _, _, chunks = struct.unpack("=8sIii", logits.read_bytes()[:20])
    assert magic == b"_logits_"
    lost = FLOOR * any(name != "f16" for types in each.values() for name in types) + sum(
        share * noise(name)
        for side, parts in (("K", share_k), ("V", share_v))
        for share, name in zip(parts, each[side], strict=True)
    )
    lost *= 2 if plain else 1
    _say(f"0.2 I kl_divergence: computing over {chunks} chunks, n_ctx={context}, batch_size=2048, n_seq=2")
    lost_before = logits.with_name("lost")
    if fail == "no-figures" or (fail == "lose-once" and not lost_before.exists()):
        lost_before.touch()
        return
    _say("chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Same top p")
    sums = 0.0
    for number in range(1, chunks + 1):
        sums += lost * PATTERN[(number - 1) % len(PATTERN)]
        mean = sums / number
        _say(
            f"{number:4} {10 + mean:10.4f} ± {0.25:9.4f} {math.log(1 + mean / 10):10.5f} ±       -nan"
            f" {mean / 100:10.5f} ± {0.0001:10.5f}     4.990 ±   -nan %    {100 - mean:6.3f} ±  1.000 %"
        )
    _say("====== Perplexity statistics ======")
    _say(f"Mean PPL(Q)                   :  {10 + lost:.6f} ±   0.250000")
    _say("Mean PPL(base)                :  10.000000 ±   0.250000")
    _say(f"Mean PPL(Q)-PPL(base)         :   {lost:.6f} ±   {'    -nan' if fail == 'nan' else '0.010000'}")
    _say(f"Mean    KLD:   {sums / chunks / 100:.6f} ±   0.000100")
    _say("Maximum KLD:   2.318614")
    _say(f"Same top p: {100 - lost:.3f} ± 0.194 %")


if __name__ == "__main__":
    main()
