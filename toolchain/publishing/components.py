"""The pieces of a CycloneDX document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .gomodules import GoModule
from .materials import Upstream

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.component import Commit, Component, ComponentType, Diff, Patch
    from packageurl import PackageURL

PROPERTY = "turboquant:"


def kind(upstream: Upstream) -> ComponentType:
    """What kind of component it is."""
    from cyclonedx.model.component import ComponentType

    return ComponentType.APPLICATION if upstream.name == "ollama" else ComponentType.LIBRARY


def commit(upstream: Upstream) -> Commit:
    """Its commit."""
    from cyclonedx.model import XsUri
    from cyclonedx.model.component import Commit

    return Commit(uid=upstream.commit, url=XsUri(upstream.commit_url))


def patch(diff: Diff) -> Patch:
    """A patch that upstream does not have."""
    from cyclonedx.model.component import Patch, PatchClassification

    return Patch(type=PatchClassification.UNOFFICIAL, diff=diff)


def go_component(module: GoModule) -> Component:
    """A module of Go."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    group, _, name = module.path.rpartition("/")
    stated = {"go:h1": module.sum, "go:instead_of": module.instead_of}
    return Component(
        type=ComponentType.LIBRARY,
        group=group or None,
        name=name,
        version=module.version,
        bom_ref=f"go:{module.path}@{module.version}",
        purl=PackageURL("golang", group or None, name, module.version or None),
        properties=properties({key: value for key, value in stated.items() if value}),
    )


def purl(upstream: Upstream) -> PackageURL | None:
    """For a repository on GitHub, the only forge for which purl has a type that both upstreams use."""
    from packageurl import PackageURL

    host, _, path = upstream.url.removeprefix("https://").partition("/")
    owner, _, name = path.partition("/")
    return PackageURL("github", owner, name, upstream.commit) if host == "github.com" and name else None


def sha256(digest: str) -> list[HashType]:
    """The digest as the format has it."""
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]


def properties(stated: Mapping[str, str]) -> list[Property]:
    """Properties of our own, whose names begin with `PROPERTY`."""
    from cyclonedx.model import Property

    return [Property(name=f"{PROPERTY}{name}", value=value) for name, value in stated.items()]
