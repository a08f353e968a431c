"""The clients that profiles are rendered for: where each reads its configuration, in what form, and what it demands.

Each has a place for a file of its own beside the user's configuration, so that nothing of the user's is ever merged or
replaced.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ..core.delivery_errors import ProfileInvalid
from ..core.documents import parse_yaml
from ..core.records import record
from .shape import Shape, misfit

PROVIDER = "turboquant"
"""how a client names the service"""
Falls = Literal["automatic", "by choice", "none"]


@record
class Client:
    """A client, as `profile.list` shows it."""

    name: str
    title: str
    file: str
    """where it reads the profile"""
    use: str
    """the command that makes it do so"""
    minimum_context: int
    """tokens below which it refuses to work; 0: none"""
    fallbacks: Falls
    """whether it goes on with another model by itself, lets its user choose one, or knows one model only"""
    states_context: bool = True
    """whether it has a setting for the context"""
    is_native: bool = False
    """whether it speaks Ollama's own interface, by which a request states its context"""
    knows_others: bool = True
    """whether a fallback may be at another service"""


class Clients(tuple[Client, ...]):
    """All clients."""


@record
class Stated:
    """What a rendered profile says, read back out of it."""

    api: str
    model: str
    context: int
    """0 where the client has no setting for it"""


@dataclass(frozen=True)
class Format:
    """How a client's profile is rendered, parsed and checked."""

    client: Client
    template: str
    parse: Callable[[str], Any]
    shape: Shape
    stated: Callable[[Any], Stated]

    def check(self, text: str, expected: Stated) -> None:
        """Parse a rendered profile and compare what it says. Raises `ProfileInvalid`."""
        try:
            data = self.parse(text)
        except (ValueError, yaml.YAMLError) as error:
            raise ProfileInvalid(f"{self.client.name}: the profile does not parse: {error}") from None
        if told := misfit(data, self.shape, self.client.name):
            raise ProfileInvalid(f"the profile is not as the client expects it: {told}")
        if (found := self.stated(data)) != expected:
            raise ProfileInvalid(f"{self.client.name}: the profile says {found}, not {expected}")


def _jsonc(text: str) -> Any:
    """JSON with whole lines of comment."""
    return json.loads("\n".join(line for line in text.splitlines() if not line.startswith("//")))


def _environment(text: str) -> dict[str, str]:
    """NAME=VALUE of `export` lines."""
    found = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            export, assignment = words
            if export != "export":
                raise ValueError(f"{line!r}: expected export NAME=VALUE")
            name, _, value = assignment.partition("=")
            found[name] = value
    return found


def _hermes(data: Any) -> Stated:
    provider, model = data["providers"][PROVIDER], data["model"]
    same = provider["base_url"] == model["base_url"] and provider["models"][model["default"]] == {
        "context_length": model["context_length"]
    }
    return Stated(api=model["base_url"] if same else "", model=model["default"], context=model["context_length"])


def _continue(data: Any) -> Stated:
    first = data["models"][0]
    suffix = "/v1" if first["provider"] == "ollama" else ""
    context = first["defaultCompletionOptions"]["contextLength"]
    return Stated(api=first["apiBase"] + suffix, model=first["model"], context=context)


def _opencode(data: Any) -> Stated:
    provider, model = data["provider"][PROVIDER], data["model"].removeprefix(f"{PROVIDER}/")
    return Stated(
        api=provider["options"]["baseURL"], model=model, context=provider["models"][model]["limit"]["context"]
    )


_LIMIT = {"contextLength": int, "maxTokens": int}
FORMATS = {
    one.client.name: one
    for one in (
        Format(
            Client(
                name="hermes", title="Hermes Agent of Nous Research (checked with 0.19.0)",
                file="~/.hermes/profiles/turboquant/config.yaml", use="hermes --profile turboquant",
                minimum_context=64_000, fallbacks="automatic",
            ),
            "profiles/hermes.yaml.j2", parse_yaml,
            {
                "_config_version": int,
                "model": {"default": str, "provider": str, "base_url": str, "context_length": int},
                "providers": {
                    PROVIDER: {
                        "name": str, "base_url": str, "transport": str, "key_env?": str, "default_model": str,
                        "models": {"*": {"context_length": int}},
                    }
                },
                "fallback_providers?": [{"provider": str, "model": str, "base_url": str}],
            },
            _hermes,
        ),
        Format(
            Client(
                name="continue", title="Continue, the extension and its cn (checked with config-yaml 1.42.0)",
                file="~/.continue/configs/turboquant.yaml", use="choose TurboQuant in the list of configurations",
                minimum_context=0, fallbacks="by choice", is_native=True,
            ),
            "profiles/continue.yaml.j2", parse_yaml,
            {
                "name": str, "version": str, "schema": str,
                "models": [
                    {
                        "name": str, "provider": str, "model": str, "apiBase": str, "apiKey?": str, "roles": [str],
                        "defaultCompletionOptions?": _LIMIT,
                    }
                ],
            },
            _continue,
        ),
        Format(
            Client(
                name="opencode", title="opencode, for OpenAI-compatible services (checked with 1.18.33)",
                file="~/.config/opencode/turboquant.jsonc",
                use="OPENCODE_CONFIG=~/.config/opencode/turboquant.jsonc opencode",
                minimum_context=0, fallbacks="by choice", knows_others=False,
            ),
            "profiles/opencode.jsonc.j2", _jsonc,
            {
                "$schema": str, "model": str,
                "provider": {
                    PROVIDER: {
                        "npm": str, "name": str, "options": {"baseURL": str, "apiKey?": str},
                        "models": {"*": {"limit": {"context": int, "output": int}}},
                    }
                },
            },
            _opencode,
        ),
        Format(
            Client(
                name="openai", title="clients that read OpenAI's variables: its SDKs, aider and others",
                file="~/.config/turboquant/openai.env", use=". ~/.config/turboquant/openai.env",
                minimum_context=0, fallbacks="none", states_context=False, knows_others=False,
            ),
            "profiles/openai.env.j2", _environment,
            {"OPENAI_BASE_URL": str, "OPENAI_API_BASE": str, "OPENAI_MODEL": str, "OPENAI_API_KEY": str},
            lambda data: Stated(api=data["OPENAI_BASE_URL"], model=data["OPENAI_MODEL"], context=0),
        ),
    )
}  # fmt: skip


def clients() -> Clients:
    """All clients, Hermes first."""
    return Clients(one.client for one in FORMATS.values())
