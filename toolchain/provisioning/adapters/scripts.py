"""The shell scripts: one head, which obtains a verified tq, and a few lines for each tool."""

from __future__ import annotations

import shlex
from typing import Any

from ...core import templates
from .. import desired
from . import outcomes
from .inputs import Inputs

_CHOICES = ("payload", "verifies", "checks", "volume", "raw")
"""of a script: tq comes with it, it only verifies it, it changes nothing, $3 is a volume, it ends with tq's own code"""


def render(template: str, given: Inputs, what: str, **values: Any) -> bytes:
    """A script of templates/adapters. Every value from outside is one single-quoted word of the shell."""
    text = templates.render(
        f"adapters/{template}.sh.j2",
        what=what,
        release=given.release,
        sequence=given.sequence,
        channel=given.channel,
        channel_url=shlex.quote(given.channel_url),
        desired=shlex.quote(desired.render(given.desired).rstrip("\n")),
        signers=shlex.quote(given.signers),
        revoked=shlex.quote(given.revoked),
        folder=shlex.quote(given.folder),
        namespace=shlex.quote(given.namespace),
        principal=shlex.quote(given.principal),
        outcomes=outcomes.OUTCOMES,
        unknown=outcomes.UNKNOWN,
        held=outcomes.HELD,
        hold_hours=outcomes.HOLD_HOURS,
        **{**dict.fromkeys(_CHOICES, False), "exits": {}, "needs": bool(values.get("exits")), **values},
    )
    return text.encode()
