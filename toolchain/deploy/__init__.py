"""Installing a release as a service that can always be rolled back.

Start with `installer.py`; docs/explanation/design.md explains the layout of the prefix and the steps of a deploy.
"""

from .installer import given_environment, install, logs, prune, recover, rollback, status, uninstall

__all__ = ["given_environment", "install", "logs", "prune", "recover", "rollback", "status", "uninstall"]
