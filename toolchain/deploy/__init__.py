"""Installing a release as a service that can always be rolled back.

Start with `installer.py`; docs/explanation/design.md explains the layout of the prefix and the steps of a deploy.
"""

from .installer import (
    follow,
    given_environment,
    install,
    logs,
    preflight,
    prune,
    recover,
    rollback,
    status,
    unhealthy,
    uninstall,
)
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
