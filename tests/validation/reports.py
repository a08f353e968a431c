"""A report with all that a page has to show, among it what a model or a server may say to break it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from toolchain.proofs import RanOn
from toolchain.validation import gate
from toolchain.validation.plan import Plan
from toolchain.validation.result import Figure, Line, Pair, Plot, Report, Table, TestResult

HOSTILE = "</div></pre><script>alert(1)</script> & <img src=x onerror=alert(2)>"
LONG = "x" * 3000
HIDDEN = "before\u2028after \u202eesrever\u202c \x1b[31mred\x1b[0m\x00"
TESTS = ("checklist", "perplexity", "trajectory", "needle", "prompts", "attention", "speed", "memory", "session")
CONTEXTS = (8192, 32768, 131072)


def plan(**changes: Any) -> Plan:
    """A plan of SmolLM2 at three contexts."""
    usual: dict[str, Any] = {
        "model": Path("/models/a model.gguf"),
        "model_name": "SmolLM2 135M Instruct",
        "model_sha256": "a" * 64,
        "trained_context": 131072,
        "release": "9.9.9-turbo1-abc",
        "release_dir": Path("/ws/releases/9.9.9-turbo1-abc"),
        "content_sha256": "b" * 64,
        "backend": "llama-server",
        "baseline": "f16",
        "candidate": "turbo4",
        "contexts": CONTEXTS,
        "tests": TESTS,
        "seed": 1,
        "text": Path("/texts/held out.txt"),
        "text_sha256": "c" * 64,
        "text_bytes": 60000,
        "perplexity_bytes": 60000,
        "prompts_sha256": "d" * 64,
        "environment": {"LLAMA_ARG_REPACK": "0", "LLAMA_API_KEY": "hunter2"},
    }
    return Plan(**(usual | changes))


def report(*results: TestResult, complete: bool = True, **changes: Any) -> Report:
    """A report of these results, judged by the gate."""
    made = plan(**changes)
    return Report(
        id=made.id,
        plan=made,
        ran_on=RanOn(platform="linux-x86_64", system="Linux 6.1, x86_64"),
        machine="2 cores, 23 GiB",
        started="2026-11-26T20:00:00+00:00",
        results=results,
        decision=gate.decide(results),
        complete=complete,
    )


def rich() -> tuple[TestResult, ...]:
    """Results of every verdict, with figures, plots, tables and pairs; some of them hostile."""
    turns = tuple(float(turn) for turn in range(1, 51))
    return (
        TestResult(test="checklist", verdict="passed", summary="verified: 5 proofs, 7 verdicts", seconds=0.1),
        TestResult(
            test="perplexity",
            verdict="failed",
            summary="perplexity rises by 0.61, more than 0.5",
            seconds=83.2,
            figures=(
                Figure(name="perplexity", baseline=15.321, candidate=15.931, error=0.041,
                       limit="delta <= 0.5", ok=False),
                Figure(name="KL divergence", candidate=0.0346, unit="nats", error=0.0008),
                Figure(name="KL, f16 against f16", candidate=-1.2e-6, unit="nats", error=math.nan),
                Figure(name="same top token", baseline=100, candidate=math.nan, unit="%"),
                Figure(name="worst token", candidate=math.inf, unit="nats", limit="none", ok=None),
            ),
            notes=("perplexity and KL disagree where a model was tuned for chats",),
            plots=(
                Plot(
                    title="KL divergence along the context",
                    x="token",
                    y="nats",
                    lines=(
                        Line(
                            name="turbo4",
                            x=tuple(float(8 * at) for at in range(128)),
                            y=tuple(0.03 + 0.02 * math.sin(at / 9) for at in range(128)),
                        ),
                    ),
                ),
            ),
        ),
        TestResult(
            test="needle",
            verdict="not asked",
            summary="f16 finds none of 15 at 131072 tokens",
            figures=(Figure(name="found", baseline=0, candidate=0, unit="of 15"),),
            tables=(
                Table(
                    title="found by depth",
                    header=("context", "0%", "25%", "50%", "75%", "100%"),
                    rows=tuple((str(one), "yes", "yes", "no | no", HOSTILE, "yes") for one in CONTEXTS),
                ),
            ),
        ),
        TestResult(
            test="prompts",
            verdict="undecided",
            summary="7 of 10 have a verdict",
            pairs=(
                Pair(key="code", title="Code", prompt="Write add(a, b).", baseline="def add(a, b):\n    return a + b\n",
                     candidate="def add(a, b):\n    return a - b\n", checks=("it compiles", "it gives 5 for 2, 3")),
                Pair(key="hostile", title=HOSTILE, prompt=HOSTILE * 20, baseline=HOSTILE, candidate=f"{LONG} {HIDDEN}",
                     verdict="worse"),
                Pair(key="same", title="Arithmetic", prompt="17 + 25?", baseline="42", candidate="42", verdict="same"),
                Pair(key="empty", title="An empty answer", prompt="?", baseline="Lisbon. " * 600, candidate=""),
                Pair(key="fences", title="Backticks", prompt="`", baseline="````\n~~~\n```",
                     candidate="| a | b |\n# c"),
            ),
        ),
        TestResult(
            test="speed",
            verdict="passed",
            summary="generates at 1.42 of f16",
            voids=("on battery", HOSTILE),
            figures=(
                Figure(name="generation at 8192", baseline=31.2, candidate=44.31, unit="tokens/s", error=0.42,
                       limit=">= 90% of f16", ok=True),
            ),
        ),
        TestResult(
            test="memory",
            verdict="passed",
            summary="within 4% of the plan",
            figures=(Figure(name="peak at 131072", baseline=3893755904, candidate=1193755904, unit="bytes"),),
            plots=(
                Plot(title="peak memory", x="context (tokens)", y="GiB", limit=3.5, lines=(
                    Line(name="f16", x=CONTEXTS, y=(0.6, 1.4, 3.6)),
                    Line(name="turbo4", x=CONTEXTS, y=(0.5, 0.7, 1.1)),
                    Line(name="planned", x=CONTEXTS, y=(0.5, None, math.nan)),
                )),
                Plot(title="nothing to draw", x="x", y="y", lines=(Line(name="none", x=(1, 2), y=(math.nan, None)),)),
            ),
        ),
        TestResult(
            test="session",
            verdict="reported",
            summary="degraded at turn 31",
            plots=(
                Plot(title=f"forced KL per turn {HOSTILE}", x="turn", y="nats", limit=0.2, lines=tuple(
                    Line(name=f"phase {phase}", x=turns, y=tuple(0.02 * phase + turn / 400 for turn in turns))
                    for phase in range(5)
                )),
            ),
        ),
    )  # fmt: skip
