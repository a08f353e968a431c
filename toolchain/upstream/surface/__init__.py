"""The C surface of llama.cpp: what a tree declares, what changed between two, and what of it Ollama uses."""

from .compare import ApiDiff, SurfaceChange, diff, told_apart
from .comparison import compare, take
from .snapshot import PLATFORM
from .surface import Snapshot
from .usage import Need, Usage

__all__ = ["PLATFORM", "ApiDiff", "Need", "Snapshot", "SurfaceChange", "Usage", "compare", "diff", "take", "told_apart"]
