"""A llama-server of several models: which ones it lists, and which it has in memory."""

from __future__ import annotations

from urllib.parse import quote

from ..core.records import record
from .llama_server import LlamaServer

_RUNNING = ("loading", "loaded", "sleeping")


@record
class _Status:
    value: str = ""


@record
class ListedModel:
    """A model of /v1/models: clients may choose it by its id or an alias."""

    id: str
    aliases: tuple[str, ...] = ()
    status: _Status = _Status()

    @property
    def is_running(self) -> bool:
        """Whether a process of its own has it in memory, or is about to."""
        return self.status.value in _RUNNING


@record
class _Models:
    data: tuple[ListedModel, ...]


@record
class _Properties:
    model_path: str = ""


class Router(LlamaServer):
    """A `LlamaServer` of several models."""

    def models(self) -> tuple[ListedModel, ...]:
        """All models that it offers."""
        return self._ask("GET", "/v1/models", _Models).data

    def file(self, name: str) -> str:
        """The file of a model, which is loaded for the answer. It is not fit to be shown."""
        return self._ask("GET", f"/props?model={quote(name, safe='')}", _Properties).model_path
