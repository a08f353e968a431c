"""The eras of Ollama's tree. A new one is a module that implements `Era`, and an entry in `ERAS`."""

from ...core.errors import EraNotServed, UnknownLayout
from ...stages import Sources
from .era import Engine, Era, Native, Way
from .pinned import Pinned
from .vendored import Vendored

ERAS: tuple[Era, ...] = (Pinned(), Vendored())
"""the order in which a tree is tested for them: newest first"""

NEWEST = ERAS[0].name
"""the era of what names none"""

__all__ = ["ERAS", "NEWEST", "Engine", "Era", "Native", "Way", "is_past", "named", "of", "require_served", "sentence"]


def named(name: str) -> Era:
    """The era of that name. Raises `UnknownLayout`."""
    for era in ERAS:
        if era.name == name:
            return era
    raise UnknownLayout(f"{name!r} is not an era of Ollama", hint=f"known: {', '.join(era.name for era in ERAS)}")


def of(found: Sources) -> Era:
    """The era of a run's Ollama."""
    return named(found.era)


def sentence(found: Sources) -> str:
    """A sentence that names the era of a run's Ollama."""
    return f"Ollama {found.ollama.describe} belongs to the {found.era} era"


def is_past(found: Sources) -> bool:
    """Whether the series serves neither the era of a run's Ollama nor an older one."""
    return all(era.unserved for era in ERAS[ERAS.index(of(found)) :])


def require_served(found: Sources) -> None:
    """Raise `EraNotServed` for an Ollama that the series does not serve."""
    era = of(found)
    if era.unserved:
        raise EraNotServed(f"{sentence(found)}, {era.unserved}", hint=era.hint)
