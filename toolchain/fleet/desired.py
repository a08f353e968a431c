"""The desired-state file that a host gets: KEY=VALUE lines, as tq reads them."""

from __future__ import annotations

import difflib

from ..core.delivery_errors import InventoryInvalid
from .inventory import Host

KEYS = frozenset(
    (
        "channel_url", "channel", "release", "prefix", "label", "domain", "user", "host", "port", "kv_cache_type",
        "models", "keep", "log_mb", "log_files", "health_timeout_s", "stability_s", "wired_limit_mb", "conflicts",
        "gpu", "state", "offline_days",
    )
)  # fmt: skip
"""all that tq knows, without `env.NAME` and the files that a rollout puts there itself"""


def check(host: Host) -> None:
    """Raise `InventoryInvalid` for a key that tq does not know, or a missing one."""
    for key in host.desired:
        if key not in KEYS and not key.startswith("env."):
            close = difflib.get_close_matches(key, KEYS, n=1)
            raise InventoryInvalid(
                f"{host.name}: desired: unknown key {key!r}",
                hint=f"did you mean {close[0]}?" if close else f"tq knows {', '.join(sorted(KEYS))} and env.NAME",
            )
    if not host.desired.get("channel_url"):
        raise InventoryInvalid(
            f"{host.name}: desired: no channel_url", hint="the base URL of the publication, in defaults.desired"
        )


def text(host: Host, release: str, folder: str, *, revoked: bool) -> str:
    """The file for a host; `release` pins it, `folder` is where the files lie on the host."""
    values = dict(host.desired)
    if release:
        values["release"] = release
    values["signers"] = f"{folder}/allowed_signers"
    if revoked:
        values["revoked_keys"] = f"{folder}/revoked_keys"
    lines = [f"{key}={value}" for key, value in sorted(values.items())]
    return "\n".join(["# written by fleet.apply", *lines, ""])
