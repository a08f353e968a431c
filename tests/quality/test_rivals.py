"""What `bench.rivals` reads from programs, and what it makes of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench import rivals

SAID = """\
llama_kv_cache: size =    3.98 MiB (   512 cells,  3 layers,  1/1 seqs), K (q4_0):    1.99 MiB, V (q4_0):    1.99 MiB
llama_kv_cache: size =    1.00 MiB (   512 cells, 15 layers,  1/1 seqs), K (q4_0):    0.50 MiB, V (q4_0):    0.50 MiB
Mean PPL(Q)                   :  14.500000 ±   0.300000
Mean PPL(base)                :  14.000000 ±   0.300000
Mean PPL(Q)-PPL(base)         :   0.500000 ±   0.040000
Mean    KLD:   0.034000 ±   -nan
"""


def test_a_cache_has_arguments_and_variables_of_its_own() -> None:
    found = rivals.program("'their fork' /opt/x f16 q6_0:q4_0,-khad,SCALE=a=b")
    assert (found.name, found.folder) == ("their fork", Path("/opt/x"))
    plain, other = found.caches
    assert (plain.k, plain.v, plain.arguments, plain.environment) == ("f16", "f16", (), ())
    assert (other.k, other.v, other.arguments) == ("q6_0", "q4_0", ("-khad",))
    assert other.environment == (("SCALE", "a=b"),)
    with pytest.raises(argparse.ArgumentTypeError, match="NAME FOLDER CACHE"):
        rivals.program("fork /opt/x")


def test_figures_of_all_caches_of_a_model_are_summed() -> None:
    found = rivals.figures(SAID)
    assert found == {
        "mib": 4.98, "ppl": 14.5, "ppl_error": 0.3, "delta": 0.5, "delta_error": 0.04, "kl": 0.034, "kl_error": 0.0,
    }  # fmt: skip
    assert rivals.figures("KV self size  =   22.50 MiB, K" + SAID[SAID.index("\nMean") :])["mib"] == 22.5
    with pytest.raises(ValueError, match="no kl"):
        rivals.figures(SAID[: SAID.index("Mean    KLD")])


def test_both_kinds_of_benchmark_are_read() -> None:
    bench = [
        {"n_prompt": 128, "n_gen": 0, "n_depth": 4096, "samples_ts": [90.0, 100.0]},
        {"n_prompt": 0, "n_gen": 16, "n_depth": 0, "samples_ts": [20.0]},
    ]
    sweep = {"n_kv": 4096, "speed_pp": 70.0, "speed_tg": 15.0}
    assert list(rivals.speeds("loaded\n" + "\n".join(map(json.dumps, [*bench, sweep])))) == [
        {"test": "prompt", "depth": 4096, "rate": 100.0},
        {"test": "generation", "depth": 0, "rate": 20.0},
        {"test": "generation", "depth": 4096, "rate": 15.0},
        {"test": "prompt", "depth": 4096, "rate": 70.0},
    ]


def test_bits_are_those_of_the_allocated_cache_and_a_failure_is_a_row() -> None:
    base = {"program": "fork", "cache": "f16", **rivals.figures(SAID), "mib": 8.0}
    coarse = {"program": "fork", "cache": "turbo4", **rivals.figures(SAID), "mib": 4.125}
    table = rivals.quality_table([base, coarse, {"program": "fork", "cache": "q5_0", "failed": -6}])
    assert "| fork | turbo4 | 8.25 | 0.0340 ± 0.0000 | +0.50 ± 0.04 |" in table.splitlines()
    assert "| fork | q5_0 | | failed, -6 | |" in table.splitlines()


def test_ratios_are_to_the_own_and_to_the_first_baseline() -> None:
    rows: list[rivals.Row] = [
        {"program": name, "cache": cache, "test": "prompt", "depth": 0, "rate": rate}
        for name, cache, rate in (
            ("ours", "f16", 10.0),
            ("ours", "f16", 8.0),
            ("fork", "f16", 20.0),
            ("fork", "q", 5.0),
        )
    ]
    lines = rivals.speed_table(rows).splitlines()[2:]
    assert lines[0].endswith("| 10.0 | 8.0 to 10.0, median 9.0 | 1.00 | 1.00 | 2 |")
    assert lines[1].endswith("| 1.00 | 2.00 | 1 |")
    assert lines[2].endswith("| 0.25 | 0.50 | 1 |")
