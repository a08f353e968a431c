"""The setting as a file for --config."""

from __future__ import annotations

from pathlib import Path

import yaml

from ...core.records import write_bytes


def write_profile(path: Path, setting: str) -> Path:
    """Write `deploy.kv_cache_type`, atomically, and return the path."""
    write_bytes(path, yaml.safe_dump({"deploy": {"kv_cache_type": setting}}).encode())
    return path
