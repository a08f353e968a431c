"""TurboQuant for Ollama: render, build, verify and deploy a patched Ollama.

The stages. Each is a function from one frozen record to the next:

    sources -> series (rendered patch) -> build -> verify -> release -> deploy

See docs/explanation/design.md for the map.
"""

import os

__version__ = "0.1.0"

# GitPython runs `git version` when it is imported, and raises when that fails in whatever way; then tasks that need no
# git would end, too. This cannot be run, so that it takes the git on PATH later; commands that need one say so.
os.environ |= {"GIT_PYTHON_REFRESH": "quiet", "GIT_PYTHON_GIT_EXECUTABLE": os.devnull}
