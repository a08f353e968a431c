"""llama-server as the service, with several models: it starts a llama-server for each that a client asks for.

The models are in a file of presets, whose name has the digest of its text. So a release's environment names the file
that it was installed with, and a rollback brings the models back with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...core.deadline import Deadline
from ...core.errors import ReleaseInvalid, ServerFailed, Unhealthy
from ...core.printable import printable
from ...core.variables import SERVE
from ...serving.router import Router
from ..unit import CALL_TIMEOUT_S, Served, StartedUnit, UnitProof, Variables
from . import presets
from .llama_server import LlamaServerUnit, generate, key_of, prove_caches
from .presets import Preset

ROUTER = "llama-server-router"
"""the unit's name in a release's environment"""
_NO_CACHE = "/dev/null/none"
"""of downloaded models: llama-server would offer those of its user's cache, too"""
_NO_FILE = "none"
"""what a router states as its model"""
_OWN = LlamaServerUnit.variables
_ALL = "would hold for all models"
_VARIABLES = Variables(
    settings={
        **_OWN.settings,
        presets.VARIABLE: "deploy.serve_models",
        "LLAMA_CACHE": "",
        "LLAMA_ARG_MODELS_AUTOLOAD": "",
        "LLAMA_ARG_NO_MODELS_AUTOLOAD": "",  # which would win
    },
    kinds={"LLAMA_ARG_MODELS_MAX": "number"},
    prefix=_OWN.prefix,
    paths=(presets.VARIABLE,),
    refused={
        **{name: why for name, why in _OWN.refused.items() if name != presets.VARIABLE},
        **dict.fromkeys(("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE", "LLAMA_ARG_MMPROJ"), _ALL),
        **dict.fromkeys(("LLAMA_ARG_MMPROJ_URL", "LLAMA_ARG_TAGS"), _ALL),
    },
)


class RouterUnit(LlamaServerUnit):
    """A `Unit` that serves the models of `Served`, of which `most` are in memory."""

    name = "llama-server with several models"
    reminded_after_s = 7.0  # it lets answers under way end, as Ollama does in that time
    variables = _VARIABLES

    def _models(self, served: Served) -> dict[str, str]:
        (path,) = self.files(served)
        return {
            SERVE: ROUTER,
            presets.VARIABLE: str(path),
            "LLAMA_ARG_MODELS_MAX": str(served.most),
            "LLAMA_ARG_MODELS_AUTOLOAD": "1",
            "LLAMA_CACHE": _NO_CACHE,
        }

    def _stated(self, environment: Mapping[str, str]) -> str:  # noqa: ARG002
        return _NO_FILE

    def files(self, served: Served) -> Mapping[Path, str]:
        """The file of presets. Raises `ConfigError` for models that it cannot hold."""
        text = presets.render(presets.of(served.models))
        return {(served.folder or Path()) / presets.name_of(text): text}

    def runners(self, environment: Mapping[str, str], deadline: Deadline) -> int:
        """One for each model in memory."""
        client = Router(self.url(environment), Path(), CALL_TIMEOUT_S, deadline, key=key_of(environment))
        return sum(model.is_running for model in client.models())

    def proof(self, started: StartedUnit, deadline: Deadline) -> UnitProof:
        """The models that it offers; text of the smallest, out of its own file, and its cache lines.

        A model whose file is gone fails alone, so it proves nothing about the release.
        """
        given = started.environment
        try:
            asked = presets.read(Path(given.get(presets.VARIABLE, "")))
        except ReleaseInvalid as error:
            raise Unhealthy(error.message) from error
        client = Router(self.url(given), started.log.parent, deadline.seconds, deadline, key=key_of(given))
        _require_all(client, asked)
        gone = [preset for preset in asked if _missing(preset)]
        if len(gone) == len(asked):
            raise Unhealthy("; ".join(map(_missing, gone)))
        smallest = min((preset for preset in asked if preset not in gone), key=_size)
        generate(client, smallest.names[0])
        _require_file(client, smallest)
        found = prove_caches(started, lambda: _lines_of(smallest.section, started.logged()), deadline)
        return replace(found, unproven="; ".join([*filter(None, [found.unproven]), *map(_missing, gone)]))


def _require_all(client: Router, asked: tuple[Preset, ...]) -> None:
    try:
        offered = {model.id: frozenset(model.aliases) for model in client.models()}
    except ServerFailed as error:
        raise Unhealthy(f"the release answers, but does not say which models it has: {error.message}") from error
    wanted = {preset.section: frozenset(preset.names) for preset in asked}
    for what, more, less in (("lacks", wanted, offered), ("also offers", offered, wanted)):
        for section, names in more.items():
            if less.get(section) != names:
                told = ", ".join(sorted(names - less.get(section, frozenset()))) or section
                raise Unhealthy(f"the service {what} the model {printable(told)}, against deploy.serve_models")


def _require_file(client: Router, preset: Preset) -> None:
    try:
        file = client.file(preset.names[0])
    except ServerFailed as error:
        raise Unhealthy(f"{preset.names[0]}: its file is unknown: {error.message}") from error
    if file != str(preset.file):
        raise Unhealthy(f"the service answers as {preset.names[0]} with the model {printable(file)}, not {preset.file}")


def _lines_of(section: str, log: str) -> str:
    """What the model's present process logged: the router puts its port before every line."""
    started = re.compile(rf"spawning server instance with name={re.escape(section)} on port (\d{{1,5}})")
    begun = list(started.finditer(log))
    if not begun:
        return ""
    own = f"[{begun[-1][1]:>5}] "
    return "\n".join(line for line in log[begun[-1].end() :].splitlines() if line.startswith(own))


def _missing(preset: Preset) -> str:
    """What is not there of a model; empty if all is."""
    files = (preset.file, *([preset.projector] if preset.projector else []))
    return "".join(f"{preset.names[0]}: {file} does not exist" for file in files if not file.is_file())


def _size(preset: Preset) -> int:
    try:
        return preset.file.stat().st_size
    except OSError:
        return 0
