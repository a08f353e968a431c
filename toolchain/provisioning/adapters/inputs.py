"""What the adapters are made of: a release as its channel names it, the desired state, and the publisher's keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ...core import variables
from ...core.config import DeployConfig
from ...core.errors import ConfigError
from ...core.records import record

_PRIVATE = re.compile(r"PRIVATE KEY|^AGE-SECRET-KEY", re.MULTILINE)
_OURS = ("signers", "revoked_keys")
"""keys of paths on a Mac, which a script writes itself"""


@record
class Inputs:
    """Already verified by whoever read them; `check` looks for what must not stand in a script."""

    channel: str
    sequence: int
    """of the channel's statement: the version of what is rendered, since it grows when a publisher rolls back, too"""
    release: str
    version: str
    """of Ollama"""
    min_macos: str
    platform: str
    tq: bytes
    tq_signature: bytes
    tq_sha256: str
    desired: Mapping[str, str]
    signers: str
    """lines of allowed_signers"""
    revoked: str = ""
    """public keys that are trusted no more"""
    namespace: str
    """of the signature of tq"""
    principal: str
    """whose keys `signers` lists"""
    folder: str = ""
    """of the desired state on the Mac; empty: tq's own default"""

    @property
    def channel_url(self) -> str:
        """Where the publication is."""
        return self.desired["channel_url"].rstrip("/")

    @property
    def label(self) -> str:
        """launchd's label of the service."""
        return self.desired.get("label", DeployConfig().label)

    @property
    def architecture(self) -> str:
        """As in arm64."""
        return self.platform.partition("-")[2]

    def pinned(self) -> Inputs:
        """With the release in the desired state: for what has a version, so that each version is one release."""
        return dataclasses.replace(self, desired={"release": self.release, **self.desired})


def check(given: Inputs) -> Inputs:
    """The inputs as a script may hold them. Raises `ConfigError` for a secret: many can read an MDM's scripts."""
    desired = {key: value for key, value in given.desired.items() if key not in _OURS or not given.revoked}
    desired.pop("signers", None)
    url = desired.get("channel_url", "")
    if not re.match(r"https://[^/]|file:///|http://127\.0\.0\.1[:/]", url):
        raise ConfigError(
            f"channel_url: {url[:200]!r} is no URL of a publication",
            hint="channel_url=https://..., file:///... or http://127.0.0.1:PORT/ in the desired state",
        )
    for key, value in desired.items():
        if variables.masked(key.removeprefix("env."), value) != value:
            raise ConfigError(
                f"{key}: looks like a secret, and an MDM shows its scripts to many",
                hint="keep it in a file on the Mac that the service's user alone can read",
            )
    if _PRIVATE.search(given.signers + given.revoked + "\n".join(desired.values())):
        raise ConfigError("a private key was given where a public one belongs", hint="see publish.signers")
    for text in (given.signers, given.revoked):
        if any(ord(letter) < 0x20 and letter not in "\n\t" for letter in text):
            raise ConfigError("the publisher's keys contain a control character", hint="see publish.signers")
    return dataclasses.replace(
        given, desired=desired, signers=_lines(given.signers), revoked=_lines(given.revoked)
    )  # fmt: skip


def _lines(text: str) -> str:
    """Without comments and empty lines."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
