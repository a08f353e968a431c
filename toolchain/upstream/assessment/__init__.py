"""Whether and how TurboQuant can get into an Ollama today: checks become gates, gates become a decision."""

from .assessment import assess
from .report import save, text

__all__ = ["assess", "save", "text"]
