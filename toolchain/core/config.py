"""The one configuration: defaults < turboquant.yaml < environment < flags.

A setting is named by its dotted key (`deploy.port`), in the environment by TURBOQUANT_DEPLOY_PORT. Its type,
default, allowed range and help stand once, in the sections below; `./inv config` prints the result with the
origin of each value.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import platformdirs
import yaml

from .cachetypes import grammar
from .cachetypes.table import own, proven_types, standard
from .errors import ConfigError, SeriesError
from .records import record

FILE_NAME = "turboquant.yaml"
ENV_PREFIX = "TURBOQUANT_"


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    pattern: str = "",
    cache_type: bool = False,
) -> Any:
    """A field of a section: its default, or what makes it, what it means, and what it may be."""
    made: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(
        **made,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "choices": tuple(choices),
            "pattern": pattern,
            "cache_type": cache_type,
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcesConfig:
    """Where Ollama and llama.cpp come from."""

    ollama: str = setting("https://github.com/ollama/ollama.git", "Ollama: a URL or a local git repository")
    ollama_ref: str = setting(
        "", "branch, tag or commit of Ollama; empty: what HEAD names, for ship its newest stable release that is served"
    )
    llama_cpp: str = setting("https://github.com/ggml-org/llama.cpp.git", "llama.cpp: a URL or a local git repository")
    llama_cpp_ref: str = setting("", "commit of llama.cpp; empty: the one that Ollama pins")
    nearest_pin: bool = setting(False, "when the pin is not in the mirror, take the newest build before it")
    offline: bool = setting(False, "never touch the network; fail when an object is missing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForkConfig:
    """Which fork of llama.cpp is assessed, and when it counts as too far gone."""

    origin: str = setting("", "a TurboQuant fork of llama.cpp: a URL or a local git repository; empty: none")
    fresh_days: float = setting(14.0, "age of its base in days below which it is fresh", low=0, high=3650)
    stale_days: float = setting(28.0, "age of its base in days above which it is very stale", low=0, high=3650)
    conflict_minutes: float = setting(15.0, "minutes of resolving conflicts that end a path", low=0, high=10000)
    build_minutes: float = setting(120.0, "minutes of failing builds that end a path", low=0, high=10000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesConfig:
    """Which patch series is rendered."""

    path: str = setting("", "folder with series.yaml; empty: the toolkit's own patches/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How the patched tree is built."""

    preset: str = setting("auto", "CMake preset of llama/server; auto: darwin on macOS, cpu elsewhere")
    jobs: int = setting(0, "parallel jobs; 0: one for each core", low=0, high=512)
    suffix: str = setting("turbo1", "appended to the version that Ollama reports", pattern=r"[a-z0-9.]{1,24}")
    compiler: str = setting(
        "auto", "C and C++ compiler: auto (the system's, else zig), system or zig", choices=("auto", "system", "zig")
    )
    min_free_gb: float = setting(6.0, "free disk that a build must find, in GB", low=0, high=1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What a build must show before it is released."""

    types: tuple[str, ...] = setting(lambda: proven_types(own()), "cache types that must run", cache_type=True)
    tokens: int = setting(10, "tokens to generate with each type", low=1, high=4096)
    timeout_s: float = setting(180.0, "seconds for one model load or generation", low=1, high=3600)
    model: str = setting(
        "", "a model that must bear the service's cache type: a GGUF file, or a name in Ollama's store"
    )
    collapse: str = setting(
        "refuse", "what to do when it does not: refuse, or accept with a warning", choices=("refuse", "accept")
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """Where and how the release is installed as a service."""

    prefix: str = setting(
        str(Path(platformdirs.user_data_dir("turboquant"))), "folder that holds releases/, current and the shim"
    )
    label: str = setting("io.turboquant.ollama", "launchd label", pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{2,120}")
    agents_dir: str = setting("", "folder of the plist; empty: ~/Library/LaunchAgents, or the stand-in's own")
    service_manager: str = setting(
        "auto", "launchd, or our stand-in where there is none", choices=("auto", "launchd", "standin")
    )
    domain: str = setting(
        "auto", "launchd domain: auto, gui/UID, user/UID or system", pattern=r"auto|system|(gui|user)/\d+"
    )
    host: str = setting("127.0.0.1", "address that Ollama listens on", pattern=r"[0-9A-Za-z.:\[\]-]+")
    port: int = setting(11434, "port that Ollama listens on", low=1, high=65535)
    kv_cache_type: str = setting(lambda: standard(own()), "cache type of the service", cache_type=True)
    models: str = setting("", "model store of the service; empty: Ollama's own default")
    health_timeout_s: float = setting(60.0, "seconds until a new release must be healthy", low=1, high=3600)
    stability_s: float = setting(15.0, "seconds that it must then stay up without a restart", low=0, high=3600)
    allow_unverified: bool = setting(False, "install a release that no verification proves, with a warning")
    keep: int = setting(3, "releases to keep, the active one and its parent always", low=2, high=100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is watched beside the repositories themselves."""

    api: str = setting("https://api.github.com", "the forge's REST interface; empty: never asked")
    ollama: str = setting("ollama/ollama", "owner/name of Ollama at the forge", pattern=r"[\w.-]+/[\w.-]+")
    llama_cpp: str = setting("ggml-org/llama.cpp", "owner/name of llama.cpp there", pattern=r"[\w.-]+/[\w.-]+")
    words: tuple[str, ...] = setting(
        ("turboquant",), "words that make a pull request of interest, wherever they stand in it", pattern=r"[\w-]+"
    )
    titles: tuple[str, ...] = setting(
        ("flash attention", "KV cache", "Metal"),
        "words that make a commit or pull request of interest when they stand in its title",
        pattern=r"[\w-]+( [\w-]+)*",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All settings. `origins` maps each dotted key to the place that its value came from."""

    workspace: str = setting(
        str(Path(platformdirs.user_cache_dir("turboquant"))), "folder for mirrors, scratch trees, builds and logs"
    )
    sources: SourcesConfig = SourcesConfig()
    fork: ForkConfig = ForkConfig()
    series: SeriesConfig = SeriesConfig()
    build: BuildConfig = BuildConfig()
    verify: VerifyConfig = dataclasses.field(default_factory=VerifyConfig)
    deploy: DeployConfig = dataclasses.field(default_factory=DeployConfig)
    watch: WatchConfig = WatchConfig()
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
    dotted keys to values. Raises `ConfigError` with the key, the value and what is allowed.
    """
    table = _settings(Config)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(table, "default")
    for origin, layer in (
        *_file_layer(file),
        ("environment", _environment_layer(os.environ if environ is None else environ, table)),
        ("flag", dict(flags or {})),
    ):
        for key, raw in layer.items():
            if key not in table:
                raise ConfigError(f"{origin}: unknown setting {key!r}", hint=_similar(key, table))
            name = f"environment {_env_name(key)}" if origin == "environment" else origin
            values[key] = _validated(key, raw, table[key], name)
            origins[key] = name
    return _assemble(_of_series(values.get("series.path")) | values, origins)


class SettingRows(tuple[SettingRow, ...]):
    """All settings."""


def rows(config: Config) -> SettingRows:
    """Every setting with its value, origin and allowed range."""
    found = []
    for key, field in _settings(Config).items():
        section, _, name = key.rpartition(".")
        holder = getattr(config, section) if section else config
        found.append(
            SettingRow(
                key=key,
                value=getattr(holder, name),
                origin=config.origins.get(key, "default"),
                allowed=_allowed(field),
                help=str(field.metadata["help"]),
            )
        )
    return SettingRows(found)


@dataclasses.dataclass(frozen=True)
class _Field:
    kind: Any
    metadata: Mapping[str, Any]


def _settings(cls: type, prefix: str = "") -> dict[str, _Field]:
    hints = get_type_hints(cls)
    found: dict[str, _Field] = {}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= _settings(hints[field.name], f"{prefix}{field.name}.")
        elif "help" in field.metadata:
            found[prefix + field.name] = _Field(hints[field.name], field.metadata)
    return found


def _of_series(path: str | None) -> dict[str, Any]:
    """Defaults that the types of another series give. One that cannot be read is for its users to complain of."""
    try:
        types = own(Path(path).expanduser()) if path else ()
    except SeriesError:
        types = ()
    return {"verify.types": proven_types(types), "deploy.kv_cache_type": standard(types)} if types else {}


def _assemble(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    sections: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (sections.setdefault(section, {}) if section else top)[name] = value
    base = Config()
    for section, changes in sections.items():
        top[section] = dataclasses.replace(getattr(base, section), **changes)
    return dataclasses.replace(base, origins=dict(origins), **top)


def _file_layer(file: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    path = file or Path(FILE_NAME)
    if file is None and not path.is_file():
        return
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)  # noqa: S506  a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", hint="--config names the file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if data is None:
        return
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[str(key)] = value
    yield str(path), flat


def _environment_layer(environ: Mapping[str, str], table: Mapping[str, _Field]) -> dict[str, str]:
    return {key: environ[_env_name(key)] for key in table if _env_name(key) in environ}


def _env_name(key: str) -> str:
    return ENV_PREFIX + key.replace(".", "_").upper()


def _similar(key: str, table: Mapping[str, _Field]) -> str:
    import difflib

    close = difflib.get_close_matches(key, list(table), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "./inv config lists the settings"


def _allowed(field: _Field) -> str:
    meta = field.metadata
    if meta["choices"]:
        return " | ".join(meta["choices"])
    if field.kind is bool:
        return "true | false"
    if meta["low"] is not None or meta["high"] is not None:
        return f"{field.kind.__name__} from {meta['low']:g} to {meta['high']:g}"
    if meta["pattern"]:
        return f"text like {meta['pattern']}"
    if meta["cache_type"]:
        return "TYPE or K:V, each with rules for layers such as turbo2,first=2:q8_0,last=2:q8_0"
    return "text"


def _validated(key: str, raw: Any, field: _Field, origin: str) -> Any:
    try:
        value = _coerced(raw, field.kind)
    except ValueError:
        value = None
    meta = field.metadata
    parts = value if isinstance(value, tuple) else (value,)
    good = value is not None and all(
        (not meta["choices"] or part in meta["choices"])
        and (meta["low"] is None or part >= meta["low"])
        and (meta["high"] is None or part <= meta["high"])
        and (not meta["pattern"] or re.fullmatch(meta["pattern"], part))
        for part in parts
    )
    if not good or value == ():
        raise ConfigError(f"{key}: {raw!r} (from {origin}) is not allowed", hint=f"allowed: {_allowed(field)}")
    if meta["cache_type"]:
        return _spelt_out(key, value, origin)
    return value


def _spelt_out(key: str, value: Any, origin: str) -> Any:
    """Cache types in the form that shows all of their rules."""
    if isinstance(value, tuple):
        return tuple(_spelt_out(key, part, origin) for part in value)
    try:
        return str(grammar.parse(value))
    except ConfigError as error:
        raise ConfigError(f"{key} (from {origin}): {error.message}", hint=error.hint) from error


def _coerced(raw: Any, kind: Any) -> Any:
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in ("1", "true", "yes", "on"):
            return True
        if isinstance(raw, str) and raw.lower() in ("0", "false", "no", "off"):
            return False
        raise ValueError
    if kind in (int, float):
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise ValueError
        number = kind(raw)
        if number != number or (kind is int and isinstance(raw, float) and raw != number):
            raise ValueError
        return number
    if kind is str:
        if isinstance(raw, (bool, dict, list)) or raw is None:
            raise ValueError
        return str(raw)
    # tuple[str, ...]
    parts = list(grammar.divided(raw)) if isinstance(raw, str) else raw
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    return tuple(parts)


class UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a mapping with the same key twice, which YAML itself forbids and PyYAML allows."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here a second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
