"""The tasks of `./inv`, a module for each collection. A task only calls one function and prints its record."""

from . import (
    api,
    build,
    deploy,
    fleet,
    fork,
    journey,
    memory,
    metal,
    profile,
    provision,
    quality,
    release,
    series,
    sources,
    validate,
    verify,
)
from .command import main

namespace = journey.group.collection
for one in (
    sources,
    series,
    fork,
    api,
    build,
    verify,
    validate,
    metal,
    quality,
    memory,
    deploy,
    release,
    provision,
    fleet,
    profile,
):
    namespace.add_collection(one.group.collection)

__all__ = ["main", "namespace"]
