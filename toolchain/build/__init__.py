"""From scratch trees to a release directory, with Ollama's own build."""

from .pipeline import build, plan_of, platform_name, program_dir, version_of
from .release import (
    ADDED_LATER,
    MANIFEST,
    assemble,
    check,
    content_digest,
    examine,
    file_digests,
    find_release,
    load,
    release_dir,
    release_id,
)

__all__ = [
    "ADDED_LATER",
    "MANIFEST",
    "assemble",
    "build",
    "check",
    "content_digest",
    "examine",
    "file_digests",
    "find_release",
    "load",
    "plan_of",
    "platform_name",
    "program_dir",
    "release_dir",
    "release_id",
    "version_of",
]
