"""The file of presets from which llama-server serves several models: a section for each, its names as aliases.

llama-server shortens the name of a section after its last colon, so that of x:8b-instruct-q4_K_M and
x:70b-instruct-q4_K_M one would vanish. Aliases stay as they are; so a section has the digest of the model's file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...core.errors import ConfigError, ReleaseInvalid
from ...core.printable import printable
from ...core.records import record
from ..unit import ServedModel

VARIABLE = "LLAMA_ARG_MODELS_PRESET"
"""names the file, in a release's environment"""
SUFFIX = ".ini"
STOP_S = 5
"""for a model's process to end when the router is stopped; service managers give the whole service ten seconds"""
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_DIGITS = 12
_ALL = "*"
"""section of what holds for every model"""
_AGAIN = "install the release again"
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_NOT_IN_NAMES = re.compile(rf"""[,;#\[\]"'`\\={_UNPRINTABLE}]""")
_NOT_IN_PATHS = re.compile(rf"[;#{_UNPRINTABLE}]")


@record
class Preset:
    """One section: a GGUF file, and the names that clients choose it by."""

    section: str
    """the beginning of the file's digest; clients get it as the id of the model, with the names as its aliases"""
    names: tuple[str, ...]
    file: Path
    projector: Path | None = None


def of(models: Iterable[ServedModel]) -> tuple[Preset, ...]:
    """A preset for each file, in the order of its first name.

    Raises `ConfigError` for a name or a path that the file of presets cannot hold, and for one name of two models.
    """
    files: dict[tuple[Path, Path | None], list[str]] = {}
    owners: dict[str, tuple[Path, Path | None]] = {}
    for model in models:
        _require_plain(model)
        key = (model.file, model.projector)
        if owners.setdefault(model.name, key) != key:
            raise ConfigError(
                f"deploy.serve_models: two models are called {model.name}: {owners[model.name][0]} and {model.file}",
                hint="rename one of the files",
            )
        names = files.setdefault(key, [])
        names += [model.name] if model.name not in names else []
    found: dict[str, Preset] = {}
    for (file, projector), names in files.items():
        section = _digest(file)[:_DIGITS]
        if section in found:  # the same file with another projector, or a file whose digest begins alike
            section = _sha256(f"{file} {projector}")[:_DIGITS]
        found[section] = Preset(section=section, names=tuple(names), file=file, projector=projector)
    if taken := owners.keys() & found.keys():
        raise ConfigError(
            f"deploy.serve_models: {min(taken)}: llama-server needs this name for another model",
            hint="rename the model with `ollama cp`",
        )
    return tuple(found.values())


def render(presets: Sequence[Preset]) -> str:
    """The file's text."""
    lines = ["version = 1", "", f"[{_ALL}]", f"stop-timeout = {STOP_S}"]
    for preset in presets:
        lines += ["", f"[{preset.section}]", f"model = {preset.file}", f"alias = {','.join(preset.names)}"]
        lines += [f"mmproj = {preset.projector}"] if preset.projector else []
    return "\n".join(lines) + "\n"


def name_of(text: str) -> str:
    """A name for a file with this text, which no file with another text has."""
    return f"{_sha256(text)[:16]}{SUFFIX}"


def read(path: Path) -> tuple[Preset, ...]:
    """The presets of a file. Raises `ReleaseInvalid`."""
    try:
        return parse(path.read_bytes().decode(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseInvalid(f"{path}: {error}", hint=_AGAIN) from error


def parse(text: str, path: Path) -> tuple[Preset, ...]:
    """The presets in the text of a file `path` that `render` made. Raises `ReleaseInvalid`."""
    found: list[dict[str, str]] = []
    for line in text.split("\n"):
        if line.startswith("["):
            found.append({"section": line.strip("[]")})
        elif found and " = " in line:
            key, _, value = line.partition(" = ")
            found[-1][key] = value
    try:
        presets = tuple(
            Preset(
                section=values["section"],
                names=tuple(values["alias"].split(",")),
                file=Path(values["model"]),
                projector=Path(values["mmproj"]) if "mmproj" in values else None,
            )
            for values in found
            if values["section"] != _ALL
        )
    except KeyError as error:
        raise ReleaseInvalid(f"{path}: not a file of presets: a section lacks {error}", hint=_AGAIN) from error
    if not presets:
        raise ReleaseInvalid(f"{path}: not a file of presets: it names no model", hint=_AGAIN)
    return presets


def _digest(file: Path) -> str:
    """That of the content for a blob of Ollama's store, which is named so; else of the path: files may be large."""
    match = _BLOB.fullmatch(file.name)
    return match[1] if match else _sha256(str(file))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _require_plain(model: ServedModel) -> None:
    for what, text, pattern, hint in (
        ("name", model.name, _NOT_IN_NAMES, "rename it, by `ollama cp` or as a file"),
        ("path", str(model.file), _NOT_IN_PATHS, "rename the file or a folder above it"),
        ("projector", str(model.projector or "-"), _NOT_IN_PATHS, "rename the file or a folder above it"),
    ):
        match = pattern.search(text)
        if match or not text or text != text.strip():
            why = f"contains {match[0]!r}" if match else "is empty or has blanks at its ends"
            raise ConfigError(
                f"deploy.serve_models: {printable(model.name)}: the {what} {printable(text)!r} {why}, which a "
                "llama-server of several models does not take",
                hint=f"{hint}; or serve this model alone",
            )
