"""TurboQuant for Ollama: render, build, verify and deploy a patched Ollama.

The stages, each a function from one frozen record to the next:

    sources -> series (rendered patch) -> build -> verify -> release -> deploy

See docs/explanation/design.md for the map.
"""

import os

__version__ = "0.1.0"

# GitPython looks for git when it is imported, and would raise; a command that needs git says it better.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
