"""Profiles loaded by the clients' own parsers: `python -m tests.profiles.client_programs FOLDER`.

FOLDER has what is to be used of: `hermes-venv/` (pip install hermes-agent), `continue/node_modules/` (npm install
@continuedev/config-yaml), `opencode/node_modules/` (npm install opencode-ai), `openai-venv/` (pip install openai). The
suite does the same where the variable TURBOQUANT_CLIENTS names such a folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.memory import models, stored
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.profiles.rendering import RenderedProfile, Wanted, render

VARIABLE = "TURBOQUANT_CLIENTS"
KEY = "0123456789abcdef"

_HERMES = """
import json
from hermes_cli import config
from hermes_cli.fallback_config import get_fallback_chain
from hermes_cli.runtime_provider import resolve_runtime_provider
read = config.load_config()
used = resolve_runtime_provider(requested=read["model"]["provider"])
providers = config.get_compatible_custom_providers(read)
chain = get_fallback_chain(read)
print(json.dumps({
    "issues": [str(one) for one in config.validate_config_structure(read)],
    "versions": config.check_config_version(),
    "model": used["model"], "api": used["base_url"], "key": used["api_key"], "mode": used["api_mode"],
    "context": config.get_custom_provider_context_length(used["model"], used["base_url"], providers),
    "stated": read["model"]["context_length"],
    "fallbacks": [[one["model"], one["base_url"]] for one in chain],
    "clients": [resolve_runtime_provider(requested=one["provider"], explicit_base_url=one["base_url"])["base_url"]
                for one in chain],
}))
"""
_CONTINUE = """
import { readFileSync } from "fs";
import { parseConfigYaml, validateConfigYaml } from "@continuedev/config-yaml";
const read = parseConfigYaml(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify({ issues: validateConfigYaml(read), models: read.models }));
"""
_OPENAI = """
import json, openai
client = openai.OpenAI()
print(json.dumps({"api": str(client.base_url), "key": client.api_key}))
"""


def rendered(folder: Path, client: str, *, settings: dict[str, Any] | None = None, **wanted: Any) -> RenderedProfile:
    """A profile for a Mac of 48 GiB, with the models gemma3:27b and qwen3:32b in the store."""
    store = folder / "store"
    if not store.exists():
        stored.put_model(store, "gemma3/27b", models.gemma3_27b())
        stored.put_model(store, "qwen3/32b", models.qwen3_32b())
    (folder / "turboquant.yaml").touch()
    flags = {"workspace": str(folder / "workspace"), "deploy.models": str(store), **(settings or {})}
    run = Run(config=load(file=folder / "turboquant.yaml", environ={}, flags=flags), console=Console(json=True))
    return render(run, Wanted(**{"client": client, "model": "gemma3:27b", "memory_gb": 48.0, **wanted}))


def hermes(programs: Path, folder: Path, *, key: bool) -> None:
    """Hermes resolves the provider, the model, its context, the key and the fallbacks."""
    elsewhere = "http://127.0.0.1:8080/v1"
    out, variable = folder / "hermes/config.yaml", "TURBOQUANT_API_KEY" if key else ""
    made = rendered(
        folder,
        "hermes",
        out=str(out),
        fallbacks=(f"other@{elsewhere}",),
        key_variable=variable,
    )
    environment = {"HERMES_HOME": str(out.parent), **({"TURBOQUANT_API_KEY": KEY} if key else {})}
    said = _run([programs / "hermes-venv/bin/python", "-c", _HERMES], folder, environment)
    context = made.models[0].context
    assert said == {
        "issues": [], "versions": [33, 33], "model": "gemma3:27b", "api": made.api, "mode": "chat_completions",
        "key": KEY if key else "no-key-required", "context": context, "stated": context,
        "fallbacks": [["other", elsewhere]], "clients": [elsewhere],
    }, said  # fmt: skip


def continued(programs: Path, folder: Path, *, key: bool) -> None:
    """Continue's parser and its schema accept the profile, and read what it says."""
    out = folder / "continue.yaml"
    made = rendered(
        folder, "continue", out=str(out), fallbacks=("qwen3:32b",), key_variable="TURBOQUANT_API_KEY" if key else ""
    )
    script = programs / "continue/load.mjs"
    script.write_text(_CONTINUE)
    said = _run(["node", script, out], folder, {})
    first, second = said["models"]
    assert said["issues"] == []
    assert (first["model"], second["model"]) == ("gemma3:27b", "qwen3:32b")
    assert first["defaultCompletionOptions"]["contextLength"] == made.models[0].context
    expected = ("openai", made.api, "${{ secrets.TURBOQUANT_API_KEY }}") if key else ("ollama", made.api[:-3], None)
    assert (first["provider"], first["apiBase"], first.get("apiKey")) == expected, said


def opencode(programs: Path, folder: Path, *, key: bool) -> None:
    """opencode lists the models with their contexts, and reads the key out of the variable."""
    out = folder / "opencode.jsonc"
    made = rendered(folder, "opencode", out=str(out), key_variable="TURBOQUANT_API_KEY" if key else "")
    home = {"HOME": str(folder / "home"), "OPENCODE_CONFIG": str(out), "TURBOQUANT_API_KEY": KEY}
    (folder / "home").mkdir(exist_ok=True)
    program = programs / "opencode/node_modules/.bin/opencode"
    config = _run([program, "debug", "config"], folder, home)
    assert config["model"] == "turboquant/gemma3:27b"
    options = config["provider"]["turboquant"]["options"]
    assert options["baseURL"] == made.api
    assert ("apiKey" in options) is key
    listed = _told([program, "models", "turboquant", "--verbose"], folder, home)
    name, _, details = listed.partition("\n")
    assert name == "turboquant/gemma3:27b"
    assert json.loads(details)["limit"] == {"context": made.models[0].context, "output": made.models[0].output}


def openai(programs: Path, folder: Path, *, key: bool) -> None:
    """OpenAI's SDK takes address and key out of the environment."""
    out = folder / "openai.env"
    made = rendered(folder, "openai", out=str(out), key_variable="TURBOQUANT_API_KEY" if key else "")
    python = programs / "openai-venv/bin/python"
    said = _run(["sh", "-c", f'. "{out}" && exec "$0" -c "$1"', python, _OPENAI], folder, {"TURBOQUANT_API_KEY": KEY})
    assert said == {"api": f"{made.api}/", "key": KEY if key else "none"}


LOADERS: dict[str, Callable[..., None]] = {
    "hermes-venv": hermes,
    "continue": continued,
    "opencode": opencode,
    "openai-venv": openai,
}
"""what a loader needs in the folder of programs -> the loader"""


def _told(command: list[Any], folder: Path, environment: dict[str, str]) -> str:
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env={**known, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(command: list[Any], folder: Path, environment: dict[str, str]) -> Any:
    return json.loads(_told(command, folder, environment))


def _main() -> None:
    programs = Path(sys.argv[1]).absolute()
    for name, loader in LOADERS.items():
        if not (programs / name).exists():
            sys.stdout.write(f"{name}: not there\n")
            continue
        for key in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                loader(programs, Path(folder), key=key)
        sys.stdout.write(f"{name}: loads the profile, without and with a key: {loader.__doc__}\n")


if __name__ == "__main__":
    _main()
