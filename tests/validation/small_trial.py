"""`./inv validate` with one small test, for tests and scripts: `python -m tests.validation.small_trial validate ...`.

The test asks both sides the same few questions at each context, and compares the answers: enough to start, kill,
fill and resume a validation whose figures are known to be equal.
"""

from __future__ import annotations

from toolchain.validation.endpoint import Generated
from toolchain.validation.matrix import TESTS
from toolchain.validation.plan import SIDES
from toolchain.validation.result import Figure, Pair, TestResult
from toolchain.validation.trial import Trial

NAME = "answers"
QUESTIONS = 4
TOKENS = 12


def measure(trial: Trial) -> TestResult:
    """Greedy answers of both sides; how many are the same."""
    cells: dict[tuple[str, int, int], Generated] = {}
    contexts = trial.plan.contexts
    with trial.progress(NAME, len(contexts) * len(SIDES) * QUESTIONS) as progress:
        for context in contexts:
            for side in SIDES:
                for number in range(QUESTIONS):
                    key = f"{NAME}/{side}/{context}/{number}"
                    prompt = f"Question {number} of {trial.plan.seed}: which city lies on which river? Answer {number}:"

                    def ask(side=side, context=context, prompt=prompt):  # type: ignore[no-untyped-def]
                        return trial.at(side, context).generate(prompt, tokens=TOKENS, reuse=False)

                    measured = not trial.store.has(key)
                    cells[side, context, number] = trial.kept(key, Generated, ask)
                    progress.advance(key, measured=measured)
    pairs = [
        (cells["baseline", context, number], cells["candidate", context, number])
        for context in contexts
        for number in range(QUESTIONS)
    ]
    same = sum(a.text == b.text for a, b in pairs)
    return TestResult(
        test=NAME,
        verdict="reported",
        summary=f"{same} of {len(pairs)} answers are the same",
        figures=(Figure(name="same", baseline=1.0, candidate=same / len(pairs)),),
        pairs=tuple(
            Pair(key=f"{number}", title="", prompt=a.prompt, baseline=a.text, candidate=b.text)
            for number, (a, b) in enumerate(pairs)
        ),
    )


def register() -> None:
    """Make it the matrix's second test."""
    TESTS[NAME] = measure


if __name__ == "__main__":
    import tasks

    register()
    tasks.start()
