from tests.quality.conftest import config, model, server, workspace

__all__ = ["config", "model", "server", "workspace"]
