"""The manifests of Ollama's model store: where that of a name lies, and what it lists.

A manifest lies in manifests-v2/ or, as all did before, in manifests/, below host/namespace/model/tag. In the first,
registry.ollama.ai is ollama.com, the colon of a host is %3A, and the manifest may be a link to a blob. Names are
compared without regard to case. A manifest may be a list of others, one for each program that runs the model. Links
are followed wherever they lead, as Ollama opens them: large blobs often lie on another disk.

(manifest/ of Ollama: that of v0.32, and of pull request 16590 for lists and manifests-v2.)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ModelInvalid, reason
from ...core.records import read_bytes, record

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_V2_HOST = "ollama.com"
_LEGACY, _V2 = "manifests", "manifests-v2"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_KIND = "application/vnd.ollama.image."
_RUNNERS = ("llamacpp", "ggml", "ollama", "", "mlx")
"""programs of a list, the one first whose files llama-server opens as they are"""
_MAX_BYTES = 16 << 20
"""of a manifest: one of MLX names each of its tensors"""
MAX_TEXT = 1 << 20
"""of a layer that is read whole: parameters, a configuration"""
_AGAIN = "ollama pull the model again"


@record
class Layer:
    """One file that a manifest lists: what it is (model, projector, draft, tensor and so on), and its digest."""

    kind: str
    digest: str
    size: int | None
    """bytes; None where the manifest does not say"""


@record
class Manifest:
    """What a model of the store consists of."""

    path: Path
    layers: tuple[Layer, ...]
    """those that Ollama's own code reads"""
    config: str
    """digest of the blob that describes the model; empty without one"""
    runners: tuple[str, ...] = ()
    """the programs that a list has a manifest for"""


def find(name: str, root: Path) -> Manifest | None:
    """The manifest of the model `name` ([host/][namespace/]model[:tag]); None when the store has no such model.

    Raises `ModelInvalid` for a manifest that cannot be read.
    """
    parts = _parts(name)
    if parts is None:
        return None
    try:
        path = _path(parts, root)
    except OSError as error:
        raise ModelInvalid(f"{error.filename or root}: cannot be read: {reason(error)}") from error
    return _read(path, root) if path else None


def names(root: Path) -> Iterator[str]:
    """The models of the store, as `ollama list` names them; in no order."""
    seen = set()
    for folder in (_V2, _LEGACY):
        for manifest in (root / folder).glob("*/*/*/*"):
            host, namespace, model, tag = manifest.parts[-4:]
            if model.startswith(".") or tag.startswith("."):
                continue
            host = host.replace("%3A", ":").replace("%3a", ":")
            words = [] if host.lower() in (_HOST, _V2_HOST) else [host]
            words += [namespace] if words or namespace != _NAMESPACE else []
            if (name := f"{'/'.join([*words, model])}:{tag}") not in seen:
                seen.add(name)
                yield name


def blob(root: Path, digest: str, size: int | None = None) -> Path:
    """The file of a digest, which may be a link. Raises `ModelInvalid` where it is missing, or has another size."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ModelInvalid(f"{root}: {digest!r} is not a digest", hint=_AGAIN)
    paths = [root / "blobs" / f"sha256-{text}" for text in dict.fromkeys((match[1], match[1].lower()))]
    path = next((path for path in paths if os.path.lexists(path)), paths[-1])
    try:
        if not path.is_file():
            raise ModelInvalid(f"{path}: {_missing(path, 'the blob')}", hint=_mounted(path) or _AGAIN)
        found = path.stat().st_size
    except OSError as error:
        raise ModelInvalid(f"{path}: cannot be read: {reason(error)}") from error
    if size is not None and found != size:
        raise ModelInvalid(f"{path}: has {found} bytes, not {size}", hint=_AGAIN)
    return path


def described(manifest: Manifest, root: Path) -> dict[str, Any]:
    """What the manifest's configuration says of the model; empty where it has none, or that cannot be read."""
    try:
        found = json.loads(read_bytes(blob(root, manifest.config), limit=MAX_TEXT)) if manifest.config else {}
    except (OSError, ValueError, RecursionError, ModelInvalid):
        return {}  # old models have none, and nothing that is loaded depends on it
    return found if isinstance(found, dict) else {}


def _parts(name: str) -> tuple[str, str, str, str] | None:
    """Host, namespace, model and tag; None for an invalid name."""
    rest, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        rest, tag = name, _TAG
    words = rest.split("/")
    if len(words) > 3:
        return None
    host, namespace, model = ([_HOST, _NAMESPACE][: 3 - len(words)] + words)[-3:]
    found = (host, namespace, model, tag)
    return found if all(map(_PART.fullmatch, (host.partition(":")[0], namespace, model, tag))) else None


def _path(parts: tuple[str, str, str, str], root: Path) -> Path | None:
    host, *rest = parts
    official = host.lower() in (_HOST, _V2_HOST)
    places = [(_V2, (_V2_HOST if official else host).replace(":", "%3A")), (_LEGACY, host)]
    if official:
        places += [(_LEGACY, _HOST), (_LEGACY, _V2_HOST)]
    for folder, first in places:
        if found := _without_case(root / folder, (first, *rest)):
            return found
    return None


def _without_case(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """A file below `folder`, whatever the case of its path; one of exactly this path goes first."""
    exact = folder.joinpath(*parts)
    if os.path.lexists(exact):
        return None if exact.is_dir() else exact
    wanted = [part.lower() for part in parts]
    alike = (path for path in folder.glob("*/*/*/*") if [part.lower() for part in path.parts[-4:]] == wanted)
    return min((path for path in alike if not path.is_dir()), default=None)


def _read(path: Path, root: Path, *, nested: bool = False) -> Manifest:
    try:
        stated = json.loads(read_bytes(path, limit=_MAX_BYTES))
        if not isinstance(stated, dict):
            raise ValueError("it is no object")
        if isinstance(children := stated.get("manifests"), list) and not stated.get("layers"):
            if nested:
                raise ValueError("a list in a list")
            return _chosen(path, children, root)
        return _manifest(path, stated)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and path.is_symlink() and not path.exists():
            raise ModelInvalid(f"{path}: {_missing(path, 'the manifest')}", hint=_mounted(path)) from error
        raise ModelInvalid(f"{path}: not a manifest of Ollama: {reason(error)}", hint=_AGAIN) from error


def _manifest(path: Path, stated: dict[str, Any]) -> Manifest:
    layers = stated.get("layers")
    if layers is None:  # a Go program writes an empty list so
        layers = []
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("its layers are no list of objects")
    found = []
    for layer in layers:
        kind, digest, size = layer.get("mediaType"), layer.get("digest"), layer.get("size")
        if not isinstance(kind, str) or not isinstance(digest, str):
            raise ValueError("a layer has no mediaType or no digest")
        if kind.startswith(_KIND):
            found.append(Layer(kind=kind[len(_KIND) :], digest=digest, size=size if isinstance(size, int) else None))
    config = stated.get("config")
    digest = config.get("digest") if isinstance(config, dict) else ""
    return Manifest(path=path, layers=tuple(found), config=digest if isinstance(digest, str) else "")


def _chosen(path: Path, children: list[Any], root: Path) -> Manifest:
    """The manifest of a list that llama-server can open, if it is here; else one that Ollama runs otherwise."""
    runners = tuple(str(child.get("runner") or "").strip().lower() for child in children if isinstance(child, dict))
    if len(runners) != len(children) or not children:
        raise ValueError("its manifests are no list of objects")
    order = {runner: place for place, runner in enumerate(_RUNNERS)}
    ranked = sorted(zip(runners, children, strict=True), key=lambda one: order.get(one[0], len(order)))
    for _, child in ranked:
        if "layers" in child or "config" in child:
            found = _manifest(path, child)
        elif (match := _DIGEST.fullmatch(str(child.get("digest")))) and os.path.lexists(
            root / "blobs" / f"sha256-{match[1].lower()}"
        ):
            found = _read(blob(root, match[0]), root, nested=True)
        else:
            continue  # `ollama pull` brings only what this machine runs
        return Manifest(path=path, layers=found.layers, config=found.config, runners=runners)
    listed = ", ".join(runner or "no program" for runner in runners)
    raise ModelInvalid(f"{path}: lists a manifest each for {listed}, and none is here", hint=_AGAIN)


def _missing(path: Path, what: str) -> str:
    return f"{what} is a link to {os.readlink(path)}, which is missing" if path.is_symlink() else f"{what} is missing"


def _mounted(path: Path) -> str:
    return "mount the disk that it leads to, or pull the model again" if path.is_symlink() else ""
