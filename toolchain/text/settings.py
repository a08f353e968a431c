"""The settings."""

from __future__ import annotations

from ..core.config import SettingRows
from .dispatch import as_text


@as_text.register
def _settings(settings: SettingRows) -> str:
    """Settings for a reader: key, value, origin, and what is allowed."""
    lines = []
    for row in settings:
        value = row.value
        if isinstance(value, dict):
            value = " ".join(f"{name}={text}" for name, text in value.items())
        elif isinstance(value, tuple):
            value = " ".join(value)
        lines.append(f"{row.key:<26} {value!s:<44} {row.origin}")
        lines.append(f"{'':<26} {row.help} ({row.allowed})")
    return "\n".join(lines)
