"""Installing a release as a service that can always be rolled back.

Start with `installer.py`; docs/explanation/design.md explains the layout of the prefix and the steps of a deploy.
"""

from .access import recover
from .installer import follow, given_environment, install, logs, preflight, prune, rollback, status, uninstall
from .overview import unhealthy
from .prefix import settled

__all__ = [
    "follow",
    "given_environment",
    "install",
    "logs",
    "preflight",
    "prune",
    "recover",
    "rollback",
    "settled",
    "status",
    "unhealthy",
    "uninstall",
]
