"""What each exit code of tq means to each tool: one table, which the scripts hold and the documentation shows.

A check never changes anything. What it starts plans again first, and goes on only where tq would change something.
So a check may start it for every code that a person should see: it then fails with the same code, the service stays
as it is, and the tool reports a failure. Only what passes by itself is left for the next run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Need = Literal["no", "yes", "report", "later"]


@dataclass(frozen=True)
class Outcome:
    """An exit code of tq: `plan` and `status` of a check, `apply` of what the check starts."""

    code: int
    word: str
    need: Need
    """what a check makes of it: nothing to do, apply, fail so that somebody looks, or look again at the next run"""
    applied: str = ""
    """the word after `apply`, where it is another"""


OUTCOMES = (
    Outcome(0, "as desired", "no"),
    Outcome(1, "a bug in tq", "report"),
    Outcome(2, "wrong usage of tq", "report"),
    Outcome(3, "desired state invalid", "report"),
    Outcome(4, "needs root or another user", "report"),
    Outcome(5, "disk full", "report"),
    Outcome(6, "another deploy is running", "later"),
    Outcome(7, "a program is missing", "report"),
    Outcome(10, "would change", "yes", "changed"),
    Outcome(20, "drift", "yes"),
    Outcome(21, "not installed", "yes"),
    Outcome(30, "tampered", "report"),
    Outcome(31, "cannot verify", "report"),
    Outcome(32, "unknown key", "report"),
    Outcome(33, "key revoked or not valid today", "report"),
    Outcome(34, "signature made for another purpose", "report"),
    Outcome(35, "channel expired", "report"),
    Outcome(36, "older sequence", "report"),
    Outcome(37, "clock is wrong", "report"),
    Outcome(38, "release revoked or below the minimum", "report"),
    Outcome(39, "unsafe archive", "report"),
    Outcome(40, "channel unreachable", "report"),
    Outcome(41, "wrong platform or macOS too old", "report"),
    Outcome(50, "launchd refused", "report"),
    Outcome(51, "unhealthy, rolled back", "report"),
    Outcome(52, "unhealthy", "yes"),
    Outcome(53, "nothing to roll back to", "report"),
    Outcome(54, "conflict with another Ollama", "report"),
    Outcome(55, "launchd unavailable", "report"),
    Outcome(56, "GPU not in use", "report"),
    Outcome(58, "prefix unsafe", "report"),
    Outcome(130, "interrupted", "later"),
    Outcome(143, "ended by a signal", "later"),
)
UNKNOWN = Outcome(-1, "an unknown code of tq", "report")
SUCCESSES = (0, 10)
"""codes of `apply` that every tool takes for a success"""
HELD = (51, 56)
"""codes of `apply` after which the same is not tried again at every run: each try restarts the service"""
HOLD_HOURS = 24

MUNKI_CHECK: Mapping[Need, int] = {"no": 1, "yes": 0, "report": 0, "later": 1}
"""installcheck_script: 0 is install needed, anything else is installed; so a script that cannot run at all is, too"""
KANDJI_AUDIT: Mapping[Need, int] = {"no": 0, "yes": 1, "report": 1, "later": 0}
"""audit script: 0 is compliant, anything else starts the remediation"""


def table() -> str:
    """The table in Markdown, as docs/how-to/provision-by-mdm.md has it."""
    rows = [
        "| tq | meaning, and Jamf's attribute | Munki's check | Kandji's audit | apply by the others | Ansible |",
        "|---|---|---|---|---|---|",
    ]
    for one in (*OUTCOMES, UNKNOWN):
        code = "else" if one is UNKNOWN else str(one.code)
        munki = "install" if MUNKI_CHECK[one.need] == 0 else "installed"
        kandji = "remediate" if KANDJI_AUDIT[one.need] else "compliant"
        succeeded = one.code in SUCCESSES
        ansible = {0: "ok", 10: "changed"}.get(one.code, "failed")
        applied = "succeeded" if succeeded else f"failed, {code}" if one is not UNKNOWN else "failed"
        word = f"{one.word} (apply: {one.applied})" if one.applied else one.word
        rows.append(f"| {code} | {word} | {munki} | {kandji} | {applied} | {ansible} |")
    return "\n".join(rows) + "\n"
