"""Where llama-server computes, from its log: buffers of the KV cache, layers on a GPU, parts of the graph."""

from __future__ import annotations

import re

from ..core.records import record

_MOST_CHARACTERS = 4096
"""of a line that is looked at; the log may hold anything"""
_BUFFER = re.compile(r"llama_kv_cache\w{0,40}: {1,40}(\S{1,80}) KV buffer size = {1,20}\d{1,9}\.\d{1,6} MiB")
_OFFLOADED = re.compile(r"offloaded (\d{1,6})/(\d{1,6}) layers to GPU")
_SPLITS = re.compile(r"graph splits = (\d{1,6})(?: \(with bs=\d{1,9}\), (\d{1,6}))?")
_HOST = re.compile(r"CPU\w*|\w+_Host")


@record
class Placement:
    """Of one loaded model. `cache_on` names the buffers of the KV cache, each once; `layers` counts the output layer.
    Numbers that the log does not state are 0."""

    cache_on: tuple[str, ...]
    offloaded: int
    layers: int
    splits: int
    """of the larger one of the two graphs, for a prompt and for one token"""


def is_host(buffer: str) -> bool:
    """Whether a buffer of this name is in the CPU's memory, where a GPU does not compute."""
    return _HOST.fullmatch(buffer) is not None


def placement(log: str) -> Placement:
    """What a log states, last of all; lines of anything else are ignored."""
    buffers: dict[str, None] = {}
    offloaded = layers = splits = 0
    for line in log.splitlines():
        if len(line) > _MOST_CHARACTERS:
            continue
        if match := _BUFFER.search(line):
            buffers[match[1]] = None
        elif match := _OFFLOADED.search(line):
            offloaded, layers = int(match[1]), int(match[2])
        elif match := _SPLITS.search(line):
            splits = max(int(match[1]), int(match[2] or 0))
    return Placement(cache_on=tuple(buffers), offloaded=offloaded, layers=layers, splits=splits)
