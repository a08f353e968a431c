"""TurboQuant for Ollama: render, build, verify and deploy a patched Ollama.

The stages. Each is a function from one frozen record to the next:

    sources -> series (rendered patch) -> build -> verify -> release -> deploy

See docs/explanation/design.md for the map.
"""

import os

__version__ = "0.1.0"

# GitPython raises on import when git is missing. Commands that need git give a clearer error.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
