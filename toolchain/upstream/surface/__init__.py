"""The C surface of llama.cpp: what a tree declares, what changed between two, and what of it Ollama uses."""

from .compare import ApiDiff, Change, diff
from .comparison import compare, take
from .report import comparison as report
from .report import surface as surface_report
from .snapshot import PLATFORM
from .surface import Snapshot
from .usage import Usage

__all__ = ["PLATFORM", "ApiDiff", "Change", "Snapshot", "Usage", "compare", "diff", "report", "surface_report", "take"]
