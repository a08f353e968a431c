"""A scan for secrets by detect-secrets, which the extra dev installs.

Its own scan asks some thirty detectors about each line, which takes half a minute for this repository. So each detector
first sees a source file as a whole, and only where one finds something is the file scanned line by line.
Nothing is sent anywhere: verification of secrets with their services is off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import config, extras
from .findings import Fault, NotChecked
from .tree import File

_SOURCE = (".c", ".cmake", ".cpp", ".go", ".h", ".m", ".md", ".metal", ".patch", ".py", ".txt")
"""What detect-secrets reads as it is. It takes others for configuration, and their unquoted values for strings."""
_OFF = {
    "IPPublicDetector": "an address is no secret",
    **dict.fromkeys(
        ("CloudantDetector", "IbmCloudIamDetector", "IbmCosHmacDetector", "SoftlayerDetector"),
        "services that nothing here uses, and a quarter of the time",
    ),
    "HexHighEntropyString": "commits and digests stand everywhere here, and nothing distinguishes a hexadecimal secret",
}
"""detector -> why it is not asked"""


@dataclass(frozen=True)
class _Rule:
    """Findings that are none."""

    kinds: tuple[str, ...]
    folder: str
    why: str


_RULES = (
    _Rule(
        ("Secret Keyword", "Basic Auth Credentials"),
        "tests/",
        "tests make up passwords; keys and tokens of real services have forms that other detectors know",
    ),
)


def faults(files: Sequence[File]) -> Iterator[Fault | NotChecked]:
    """A finding for each line that looks like it holds a secret. The secret itself is not repeated.

    A line with the comment `pragma: allowlist secret` is left out, as detect-secrets does, and so are locks.
    """
    if not importlib.util.find_spec("detect_secrets"):
        yield NotChecked(
            what=f"secrets in {len(files)} files",
            why="detect-secrets (extra dev) is missing",
            hint=extras.command("dev"),
        )
        return
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import get_plugins, transient_settings

    kinds: Mapping[str, type] = get_mapping_from_secret_type_to_class()
    settings = {"plugins_used": [{"name": kind.__name__} for kind in kinds.values() if kind.__name__ not in _OFF]}
    settings_named = frozenset(row.key for row in config.rows(config.Config()))
    with transient_settings(settings), contextlib.chdir(files[0].root if files else os.curdir):
        for file in files:
            if file.text is None or (file.suffix in _SOURCE and not _suspicious(file, get_plugins())):
                continue
            for secret in scan_file(file.name):
                if not _excepted(secret, settings_named):
                    yield Fault(
                        path=file.name,
                        line=secret.line_number,
                        reason=f"looks like a secret ({secret.type}); if it is none: # pragma: allowlist secret",
                    )


def _suspicious(file: File, detectors: Sequence[Any]) -> bool:
    """Whether any detector finds something in a file as a whole; that of keywords, in all lines with one."""
    from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector

    text = file.text or ""
    words = {word.replace("_?", between) for word in DENYLIST for between in ("", "_")}
    lowered = text.lower()
    named = ""
    if any(word in lowered for word in words):
        named = "\n".join(line for line in text.splitlines() if any(word in line.lower() for word in words))
    for detector in detectors:
        seen = named if isinstance(detector, KeywordDetector) else text
        if seen and detector.analyze_line(filename=file.name, line=seen, line_number=0):
            return True
    return False


def _excepted(secret: Any, settings_named: frozenset[str]) -> bool:
    if secret.secret_value in settings_named:  # as in "API_KEY": "deploy.api_key_file"
        return True
    return any(secret.type in rule.kinds and secret.filename.startswith(rule.folder) for rule in _RULES)
