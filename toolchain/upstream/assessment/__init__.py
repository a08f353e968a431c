"""Whether and how TurboQuant can get into an Ollama today: checks become gates, gates become a decision."""

from .assessment import Assessment, assess
from .assessment_page import save

__all__ = ["Assessment", "assess", "save"]
