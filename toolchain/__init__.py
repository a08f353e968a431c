"""TurboQuant for Ollama: render, build, verify and deploy a patched Ollama.

The stages, each a function from one frozen record to the next:

    sources -> series (rendered patch) -> build -> verify -> release -> deploy

See docs/explanation/design.md for the map.
"""

__version__ = "0.1.0"
