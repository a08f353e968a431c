"""What Python loads only when it is needed, loaded while root still has its rights.

Root's Python and this checkout may be where the user for whom root acts cannot read, as in /var/root under MDM.
"""

from __future__ import annotations

import codecs
import importlib
from functools import cache

from ..core import templates

_MODULES = (
    "numpy.random",
    "rich._emoji_codes",
    "toolchain.models.compatibility.stored",
    "toolchain.models.servable",
    "toolchain.serving.cachelog",
    "toolchain.serving.probe_model",
)
"""imported where they are used, since they are slow to import, by us and by packages"""
_CODECS = ("idna", "unicode-escape", "ascii", "latin-1")
"""of sockets, of jinja2 and of HTTP"""


@cache
def load_all() -> None:
    """Load them, and the templates."""
    for name in _CODECS:
        codecs.lookup(name)
    for name in _MODULES:
        importlib.import_module(name)
    templates.load("shim.sh.j2", "rotate.sh.j2")
