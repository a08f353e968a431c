"""A llama-server as far as the lab needs one: it reads a real GGUF, tokenizes by bytes, and saves a slot of known
numbers. Its keys and values are drawn from the seed 7 in the order of layers, K before V.

The logits of the next byte are drawn by the length of the prompt, and disturbed where the type of K or V is named in
TQ_TEST_NOISE, as in turbo4=2.5. TQ_TEST_FAIL makes one thing go wrong. With TQ_TEST_GPU it has a GPU, which takes the
cache and all layers, or does what the variable says: "cpu" and "layers" leave the cache or a layer to the CPU, "splits"
an operation of each layer, and a number disturbs the logits.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tests.quality import slots
from toolchain.core.cachetypes.grammar import parse

SEED = 7


def _flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _say(line: str) -> None:
    sys.stdout.write(f"0.1 I {line}\n")
    sys.stdout.flush()


def predict(length: int, types: tuple[str, str]) -> npt.NDArray[np.float64]:
    """Logarithms of the probabilities of the 256 bytes after a prompt of this length."""
    noise = dict(one.split("=") for one in os.environ.get("TQ_TEST_NOISE", "").split() if one)
    gpu = os.environ.get("TQ_TEST_GPU", "") if "none" not in sys.argv else ""
    logits = np.random.default_rng(length).normal(0, 2, 256)
    for side, kind in enumerate(types):
        wrong = np.random.default_rng([length, side]).normal(0, 1, 256)
        logits += float(noise.get(kind.partition(",")[0], 0)) * wrong * ("=" not in kind)
    if gpu.startswith("0."):
        logits += float(gpu) * np.random.default_rng([length, 9]).normal(0, 1, 256)
    return np.asarray(logits - np.log(np.sum(np.exp(logits))))


def main() -> None:
    if "--list-devices" in sys.argv:
        return
    fail = os.environ.get("TQ_TEST_FAIL", "")
    fields = gguf.GGUFReader(_flag("--model")).fields
    layers = int(fields["llama.block_count"].contents())
    width = int(fields["llama.attention.head_count_kv"].contents()) * int(
        fields["llama.attention.key_length"].contents()
    )
    assert _flag("--parallel") == "1"
    types = (_flag("--cache-type-k"), _flag("--cache-type-v"))
    if fail == "layers" and "=" in "".join(types):
        sys.exit("error: Unsupported cache type")
    settings = parse(":".join(types))
    sides = {"K": settings.k.each(layers), "V": settings.v.each(layers)}
    if fail == "other-type":
        sides["K"] = ("f16",) * layers
    names = ["+".join(dict.fromkeys(each)) for each in sides.values()]
    sizes = f"K ({names[0]}): 0.50 MiB, V ({names[1]}): 0.50 MiB"
    _say(f"llama_kv_cache: size = 1.00 MiB ( 256 cells, {layers} layers, 1/1 seqs), {sizes}")
    if gpu := os.environ.get("TQ_TEST_GPU", "") if "none" not in sys.argv else "":
        _say(f"load_tensors: offloaded {layers if gpu == 'layers' else layers + 1}/{layers + 1} layers to GPU")
        _say(f"llama_kv_cache:       {'CPU' if gpu == 'cpu' else 'MTL0'} KV buffer size =     1.00 MiB")
        _say(f"sched_reserve: graph splits = {2 * layers + 2 if gpu == 'splits' else 2} (with bs=256), 1 (with bs=1)")
    for side, each in sides.items() if settings.reach else ():
        for number, name in enumerate(each):
            _say(f"llama_kv_cache: {side} of attention layers {number} (of {layers}): {name}, 0.25 MiB")
    if fail == "load":
        sys.exit("error: unknown architecture of the scripted model")
    read: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"status": "ok"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                self._answer({"tokens": list(body["content"].encode())})
            elif self.path == "/completion":
                if fail == "die":
                    os.write(1, b"fatal: the scripted end\n")
                    os._exit(134)
                if len(body["prompt"]) >= int(_flag("--ctx-size")):
                    self._answer({"error": "exceeds the context"}, 400)
                    return
                read[:] = body["prompt"]
                answer: dict[str, Any] = {"content": ""}
                if listed := body.get("n_probs", 0):
                    logits = predict(len(read), types)
                    top = [{"id": int(i), "logprob": float(logits[i])} for i in np.argsort(-logits)[:listed]]
                    answer["completion_probabilities"] = [] if fail == "silent" else [{"top_logprobs": top}]
                self._answer(answer)
            else:
                assert (self.path, types) == ("/slots/0?action=save", ("f16", "f16"))
                rng = np.random.default_rng(SEED)
                pairs = [slots.numbers(rng, 2, len(read), width) for _ in range(layers)]
                data = slots.header(read) + slots.cache([k for k, _ in pairs], [v for _, v in pairs], transposed=True)
                kept = data[: len(data) // 2] if fail == "truncate" else data
                Path(_flag("--slot-save-path") + body["filename"]).write_bytes(kept)
                self._answer({"n_written": len(kept if fail == "truncate" else data) + (fail == "short")})

        def _answer(self, body: dict[str, Any], status: int = 200) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    HTTPServer((_flag("--host"), int(_flag("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
