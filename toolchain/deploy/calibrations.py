"""The calibrations of keys that a service uses: those of `deploy.calibration`, copied to where it finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.config import DeployConfig
from ..core.errors import ConfigError, StateInvalid
from ..core.records import sha256_bytes
from ..core.variables import CALIBRATION
from ..service import account, managers
from .prefix import Prefix

_MOST_BYTES = 64 << 20
"""of all files; 80 layers of 8 heads of 128 take 640 KB"""
_DIGITS = 16


def files(config: DeployConfig, prefix: Prefix) -> Mapping[Path, bytes]:
    """What is to be in the prefix, in one folder that is named by the digest of its files. None without the setting.

    Raises `ConfigError` for a folder without calibrations, and for a file that is damaged or none.
    """
    if not config.calibration:
        return {}
    from ..models.quality import calibration_file  # slow to import (NumPy, gguf), and needed only here

    source = account.expand(config.calibration, config, managers.machine(config))
    about = f"deploy.calibration: {source}"
    try:
        found = sorted(path for path in source.iterdir() if path.suffix == calibration_file.SUFFIX)
        if sum(path.stat().st_size for path in found) > _MOST_BYTES:
            raise ConfigError(f"{about}: more than {_MOST_BYTES >> 20} MiB of calibrations", hint="name another folder")
        contents = {path.name: path.read_bytes() for path in found}
        for path in found:
            key, _, _ = calibration_file.parse(contents[path.name], str(path))
            if path.name != calibration_file.file_name(key):
                raise ConfigError(
                    f"{about}: {path.name} is the calibration of {calibration_file.file_name(key)}",
                    hint="give it that name: llama-server looks for it",
                )
    except OSError as error:
        hint = "./inv quality.calibrate makes one; empty: none"
        raise ConfigError(f"{about}: {error.strerror}", hint=hint) from error
    except StateInvalid as error:
        raise ConfigError(f"deploy.calibration: {error.message}", hint=error.hint) from error
    if not found:
        raise ConfigError(
            f"{about}: holds no calibration", hint=f"its files end in {calibration_file.SUFFIX}; empty: none"
        )
    digest = sha256_bytes(b"".join(f"{name} {len(data)} ".encode() + data for name, data in contents.items()))
    folder = prefix.calibrations / digest[:_DIGITS]
    return {folder / name: data for name, data in contents.items()}


def variables(placed: Mapping[Path, bytes]) -> dict[str, str]:
    """What the service's environment says of them."""
    return {CALIBRATION: str(next(iter(placed)).parent)} if placed else {}
