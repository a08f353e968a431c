"""How a release was built, as SLSA's provenance.

The release was built on its publisher's own machine, by a toolkit that the publisher can change, and the statement is
signed by the publisher's key. That is level 1 of SLSA's build track, and the statement says so.
"""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..core.records import sha256_file
from .materials import Materials, Upstream, upstreams

BUILD_TYPE = "https://turboquant.invalid/build/v1"
"""a name, not an address: docs/explanation/publishing.md describes it"""
BUILDER = "https://turboquant.invalid/builder/own-machine/v1"
LEVEL = (
    "SLSA build level 1: built on the publisher's own machine and signed by the publisher. It tells how the release "
    "was built, and does not protect against its publisher, nor against whoever controls that machine."
)


def predicate(materials: Materials) -> dict[str, Any]:
    """The predicate of a packed release."""
    release, records = materials.release, materials.records
    ollama, llama_cpp = upstreams(records.sources)
    byproducts: list[dict[str, Any]] = [
        _git("ollama, patched", release.ollama_commit),
        _git("llama.cpp, patched", release.llama_cpp_commit),
        _digest("rendered.json", sha256_file(records.folder / "rendered.json")),
        *(_digest(f"{target.target}.patch", target.sha256) for target in records.rendered.targets),
    ]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "ollama": {"repository": ollama.url, "ref": ollama.describe, "commit": ollama.commit},
                "llama_cpp": {
                    "repository": llama_cpp.url,
                    "ref": llama_cpp.describe,
                    "commit": llama_cpp.commit,
                    "build": release.llama_cpp_build,
                },
                "series_sha256": release.series_sha256,
                "version": release.version,
                "platform": release.platform,
            },
            "internalParameters": {"level": LEVEL, "flags": release.flags},
            "resolvedDependencies": [
                _upstream(ollama),
                _upstream(llama_cpp),
                _digest("turboquant-series", release.series_sha256),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"turboquant-toolchain": __version__, **release.tools}},
            "metadata": {"invocationId": release.id, "finishedOn": _time(release.created)},
            "byproducts": byproducts,
        },
    }


def _upstream(upstream: Upstream) -> dict[str, Any]:
    return {
        "name": upstream.name,
        "uri": f"git+{upstream.url}@{upstream.commit}",
        "digest": {"gitCommit": upstream.commit},
    }


def _git(name: str, commit: str) -> dict[str, Any]:
    return {"name": name, "digest": {"gitCommit": commit}}


def _digest(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _time(created: str) -> str:
    """With Z for UTC, as in-toto's timestamps have it."""
    return created.replace("+00:00", "Z")
