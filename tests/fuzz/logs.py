"""Logs of llama-server and output of llama-perplexity, of any llama.cpp."""

from __future__ import annotations

import random
import stat
from pathlib import Path

from toolchain.core.cachetypes.table import own
from toolchain.models.quality.divergence import Program, Reference
from toolchain.service import servicelog
from toolchain.serving import cachelog
from toolchain.serving.launcher import Launched, hint_on
from toolchain.serving.probe_model import ProbeGeometry

from .subject import Subject, damaged

_GEOMETRY = ProbeGeometry(head_size=64, heads=4, kv_heads=2, layers=8, context=512)
_CHUNK = "{:4} {:12} ± 0.5000 0.00100 ± 0.00010 0.00200 ± 0.00020 1.000 ± 0.100 % 98.000 ± 0.500 %"
_LINES = (
    "0.01.234.567 I llama_kv_cache: size =    8.50 MiB (   512 cells,   8 layers,  1/1 seqs), K (turbo4):    4.25 MiB, "
    "V (turbo4):    4.25 MiB",
    "llama_kv_cache: K of attention layers 0-3,6 (of 8): turbo4, 2.00 MiB",
    "llama_kv_cache: V of attention layers 0-7 (of 8): q8_0, 4.25 MiB",
    "llama_kv_cache: K of attention layers " + "0-9999," * 500 + "0 (of 9999): turbo4, 2.00 MiB",
    "llama_kv_cache: attn_rot_k = 1",
    "llama_kv_cache: attn_rot_v = 0",
    "slot context shift, n_keep = 0, n_left = 511, n_discard = 255",
    "build: b99999 (abcdef) with clang",
    "version: 0.4.0",
    "KV cache now takes 12 GiB in a cache of another kind",
    "perplexity: calculating perplexity over 2 chunks, n_ctx=512, batch_size=2048, n_seq=4",
    "perplexity: calculating perplexity over " + "9" * 5000 + " chunks",
    _CHUNK.format(1, 10.5),
    _CHUNK.format(2, 0),
    "Mean PPL(Q)                   :  10.000000 ±   0.500000",
    "Mean PPL(Q)-PPL(base)         :   0.010000 ±   nan",
    "Mean    KLD:   0.002000 ±   0.000020",
    "Same top p: 98.000 ± 0.500 %",
    "error: the text tokenizes to only 12 tokens",
    "0.1 E ggml: out of memory",
    "llama: SIGILL, illegal instruction",
)
_WORDS = tuple(line.encode() for line in _LINES)
_LONG = (
    b"kv cache " * 9000,
    b"context shift " * 9000,
    b"x" * 2_000_000,
    b"\n" * 100_000,
    b"size = " * 9000,
    b"1" * 9000,
    b" " * 50_000,
)


def _made(dice: random.Random) -> bytes:
    if dice.random() < 0.5:  # of a comparison that is sound up to its figures
        sound, figures = (_WORDS[0], _WORDS[4], _WORDS[5].replace(b"= 0", b"= 1")), [*_WORDS[10:18]]
        dice.shuffle(figures)
        return b"\n".join(sound) + b"\n" + damaged(b"\n".join(figures) + b"\n", dice, (b"0", b"-1", b"9" * 5000))
    lines = dice.choices(_WORDS, k=dice.choice((1, 5, 30, 200)))
    text = b"\n".join(lines) + b"\n"
    return text if dice.random() < 0.2 else damaged(text, dice, (*_WORDS, *dice.sample(_LONG, 2)))


def _read(path: Path) -> None:
    servicelog.tail(path, 20)
    log = path.read_bytes().decode(errors="replace")
    found = cachelog.caches(log, _GEOMETRY, own())
    cachelog.context_shifts(log)
    cachelog.unstated(log)
    cachelog.unshifted(log)
    for cache in found:
        cachelog.wrong_size(cache.proof, _GEOMETRY, own(), 4)
    for setting in ("turbo4", "q8_0:turbo4,layers=0-1:q8_0"):
        cachelog.complaint(found, setting, _GEOMETRY, 512, own())
    hint_on(log, "none")
    ended = Launched.__new__(Launched)  # its log alone is read
    ended.log = path
    ended.tail()
    ended.errors()
    _compared(path)


def _compared(path: Path) -> None:
    """A llama-perplexity that prints this."""
    program = path.with_name("llama-perplexity")
    program.write_text(f"#!/bin/sh\ncat '{path}'\n")
    program.chmod(stat.S_IRWXU)
    run = Program(path=program, model=path, log=path.with_name("log"))
    Reference(run, b"text", path.parent / "reference", context=512).compare("turbo4")


SUBJECT = Subject(make=_made, read=_read, name="server.log")
