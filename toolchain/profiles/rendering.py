"""`profile.render`: a client's configuration for the service, with the context that fits beside the model."""

from __future__ import annotations

import errno
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..core import records, templates
from ..core.cachetypes.table import own
from ..core.console import Console
from ..core.delivery_errors import ProfileInvalid
from ..core.printable import printable
from ..core.records import record
from ..core.run import Run
from ..models.memory import planning
from ..models.memory.plan import MemoryPlan, usual_types
from ..series.manifest import root_of
from ..service import address
from .clients import FORMATS, PROVIDER, Client, Format, Stated

MARK = "made by ./inv profile.render; rendering it again replaces this file"
_HEAD_LINES = 3
_MOST_OUTPUT = 8192
"""tokens of an answer that a client reserves, but at most a quarter of the context"""
_KEY_VARIABLE = "TURBOQUANT_API_KEY"


@record
class Fitting:
    """The largest context with a cache type."""

    types: str
    context: int


@record
class ProfileModel:
    """A model that a profile names."""

    model: str
    api: str
    context: int
    """tokens; 0 for a model of another service"""
    output: int
    """tokens that are kept for an answer"""


@record
class RenderedProfile:
    """A rendered profile."""

    client: str
    out: str
    """the file that was written; empty: none"""
    file: str
    """where the client reads it"""
    use: str
    api: str
    kv_cache_type: str
    models: tuple[ProfileModel, ...]
    """the first is the primary one"""
    fits: tuple[Fitting, ...]
    """of the primary model, with the service's type first"""
    notes: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Wanted:
    """What the flags of `profile.render` say."""

    client: str
    model: str
    served_as: str = ""
    """by which the service knows the model"""
    memory_gb: float = 0.0
    context: int = 0
    fallbacks: Sequence[str] = ()
    key_variable: str = ""
    address: str = ""
    """by which the client reaches the service"""
    out: str = ""


def render(run: Run, wanted: Wanted) -> RenderedProfile:
    """The profile, written to `out` if that is named. Raises `ProfileInvalid`, and what `planning.plan_for` does."""
    form = FORMATS.get(wanted.client)
    if form is None:
        raise ProfileInvalid(f"--client {wanted.client!r}: unknown", hint=f"one of {', '.join(FORMATS)}")
    deploy = run.config.deploy
    api = address.base_url(wanted.address or deploy.host, deploy.port) + "/v1"
    key = wanted.key_variable or (_KEY_VARIABLE if deploy.serve == "llama-server" and deploy.api_key_file else "")
    if key and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", key):
        raise ProfileInvalid(f"--key-variable {key!r}: not a name of a variable", hint=_KEY_VARIABLE)
    if not re.fullmatch(r"[0-9A-Za-z.:\[\]-]{0,253}", wanted.address):
        raise ProfileInvalid(f"--address {wanted.address[:80]!r}: not a host", hint="without a port")
    plan = _plan(run, wanted.model, wanted.memory_gb)
    primary = _primary(run, form, wanted, plan, api)
    native = form.client.is_native and deploy.serve == "ollama" and not key
    fallbacks = tuple(_fallback(run, form, wanted, text, primary, native) for text in wanted.fallbacks)
    _check_fallbacks(form.client, primary, fallbacks)
    fits = tuple(Fitting(types=one.types, context=one.largest_gpu_context) for one in plan.types if not one.obstacle)
    notes = _notes(run, form, primary, native)
    text = templates.render(
        form.template,
        provider=PROVIDER, url=api.removesuffix("/v1"), api=api, model=primary.model, context=primary.context,
        api_quoted=shlex.quote(api), model_quoted=shlex.quote(primary.model),
        primary=primary, fallbacks=list(fallbacks), key_variable=key, native=native,
        comments=[printable(line, 200) for line in (MARK, *_comments(deploy.kv_cache_type, primary, fits, notes))],
    )  # fmt: skip
    context = primary.context if form.client.states_context else 0
    form.check(text, Stated(api=api, model=primary.model, context=context))
    out = _write(run.console, Path(wanted.out).expanduser().absolute(), text) if wanted.out else ""
    return RenderedProfile(
        client=wanted.client,
        out=out,
        file=form.client.file,
        use=form.client.use.replace(form.client.file, shlex.quote(out)) if out else form.client.use,
        api=api,
        kv_cache_type=deploy.kv_cache_type,
        models=(primary, *fallbacks),
        fits=fits,
        notes=notes,
        text=text,
    )


def _plan(run: Run, model: str, memory_gb: float) -> MemoryPlan:
    """The context of a model with the service's type and others, for the requests that the service takes at once."""
    given = run.config.deploy.environment.get("OLLAMA_NUM_PARALLEL", "")
    types = dict.fromkeys((run.config.deploy.kv_cache_type, *usual_types(own(root_of(run.config)))))
    return planning.plan_for(
        run, model, types=list(types), ram=memory_gb, parallel=int(given) if given.isdigit() and int(given) else 1
    )


def _primary(run: Run, form: Format, wanted: Wanted, plan: MemoryPlan, api: str) -> ProfileModel:
    types = plan.types[0]
    if types.obstacle:
        raise ProfileInvalid(
            f"{wanted.model}: does not work with deploy.kv_cache_type={types.types}: {types.obstacle}",
            hint="./inv memory.plan compares the types",
        )
    fits, limit, setting = types.largest_gpu_context, *_limit(run)
    if not fits:
        raise ProfileInvalid(
            f"{wanted.model}: no context fits beside its weights in {plan.ram / (1 << 30):.1f} GiB",
            hint="a smaller model, or a stronger quantization",
        )
    if wanted.context > fits:
        raise ProfileInvalid(
            f"--context {wanted.context}: more than the {fits} tokens that fit with {types.types}",
            hint="leave it out for the most that fits",
        )
    context = min(wanted.context or fits, limit or fits)
    if context < form.client.minimum_context:
        best = max(plan.types, key=lambda one: one.largest_gpu_context)
        reach = f"{best.types} reaches {best.largest_gpu_context}; or a smaller model, or more memory"
        trained = f"it was trained on {plan.context_length}: another model"
        raise ProfileInvalid(
            f"{form.client.name} needs a context of {form.client.minimum_context} tokens; {wanted.model} has {context} "
            f"with {types.types}{f' and {setting}={limit}' if limit and limit < fits else ''}",
            hint=trained if plan.context_length < form.client.minimum_context else reach,
        )
    return _model(_served_name(run, wanted), api, context)


def _limit(run: Run) -> tuple[int, str]:
    """The context that the service is set to, and the setting; 0: none is set."""
    deploy = run.config.deploy
    if deploy.serve == "llama-server":
        return deploy.context, "deploy.context"
    given = deploy.environment.get("OLLAMA_CONTEXT_LENGTH", "")
    return int(given) if given.isdigit() else 0, "deploy.environment.OLLAMA_CONTEXT_LENGTH"


def _model(name: str, api: str, context: int) -> ProfileModel:
    return ProfileModel(model=name, api=api, context=context, output=min(_MOST_OUTPUT, math.ceil(context / 4)))


def _served_name(run: Run, wanted: Wanted) -> str:
    """The name by which clients ask for the model."""
    is_file = wanted.model.startswith(("http://", "https://")) or Path(wanted.model).expanduser().is_file()
    if is_file and not wanted.served_as and run.config.deploy.serve == "ollama":
        raise ProfileInvalid(f"{wanted.model}: Ollama knows no files", hint="--served-as, as `ollama list` shows it")
    named = wanted.model.rpartition("/")[2].removesuffix(".gguf") if is_file else wanted.model
    return _clean(wanted.served_as or named)


def _fallback(run: Run, form: Format, wanted: Wanted, text: str, primary: ProfileModel, native: bool) -> ProfileModel:
    """`NAME`: another model of the service. `NAME@URL`: one of another service, of whose memory nothing is known."""
    name, at, url = text.partition("@")
    if at:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ProfileInvalid(
                f"--fallback {name}@...: not the URL of a service", hint="NAME@http://127.0.0.1:8080/v1, without a key"
            )
        return _model(_clean(name), url.rstrip("/"), 0)
    plan = _plan(run, name, wanted.memory_gb)
    fits = plan.types[0].largest_gpu_context
    given = _limit(run)[0] or (0 if native else primary.context)
    context = min(fits, given or fits)
    if not fits or fits < min(given, plan.context_length):
        raise ProfileInvalid(
            f"--fallback {name}: {fits} tokens fit, less than the service's context of {given}",
            hint=f"--context {fits}, or a smaller model" if fits else "a smaller model",
        )
    if context < form.client.minimum_context:
        raise ProfileInvalid(
            f"--fallback {name}: {context} tokens; {form.client.name} needs {form.client.minimum_context}",
            hint="another model",
        )
    return _model(_clean(name), primary.api, context)


def _check_fallbacks(client: Client, primary: ProfileModel, fallbacks: Sequence[ProfileModel]) -> None:
    if fallbacks and client.fallbacks == "none":
        raise ProfileInvalid(f"{client.name} knows one model only, so no fallback", hint="leave --fallback out")
    if not client.knows_others and any(one.api != primary.api for one in fallbacks):
        raise ProfileInvalid(f"{client.name}: its fallbacks are models of the same service", hint="--fallback NAME")
    names = [(one.model, one.api) for one in (primary, *fallbacks)]
    if len(set(names)) != len(names):
        raise ProfileInvalid("--fallback: a model is named twice")


def _clean(name: str) -> str:
    if not name or printable(name, 200) != name:
        raise ProfileInvalid(f"{printable(name, 80)!r}: not the name of a model")
    return name


def _notes(run: Run, form: Format, primary: ProfileModel, native: bool) -> tuple[str, ...]:
    """What the service has to be set to."""
    limit, setting = _limit(run)
    found = [] if limit or native else [f"the service must have this context: --set {setting}={primary.context}"]
    if not form.client.states_context:
        found.append(f"the client has no setting for the context: keep below {primary.context} tokens")
    return tuple(found)


def _comments(kv_cache_type: str, primary: ProfileModel, fits: Sequence[Fitting], notes: Sequence[str]) -> list[str]:
    others = ", ".join(f"{one.context} with {one.types}" for one in fits[1:])
    return [
        f"{primary.model}: {primary.context} tokens, with the cache type {kv_cache_type}",
        *([f"what fits otherwise: {others}"] if others else []),
        *notes,
    ]


def _write(console: Console, path: Path, text: str) -> str:
    """Write a profile, but never over a file that is none of ours. Raises `ProfileInvalid`."""
    try:
        head = records.read_bytes(path, follow=False).decode(errors="replace").splitlines()[:_HEAD_LINES]
        if not any(MARK in line for line in head):
            raise ProfileInvalid(f"{path}: not a profile that was made here; it is left alone", hint="another --out")
    except FileNotFoundError:
        pass
    except OSError as error:
        what = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise ProfileInvalid(f"{path}: {what}; it is left alone", hint="name a file with --out") from error
    try:
        records.write_bytes(path, text.encode())
    except OSError as error:
        raise ProfileInvalid(f"{path}: {error.strerror}", hint="another --out") from error
    console.note(f"written: {path}")
    return str(path)
