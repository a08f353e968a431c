"""The folders of this checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "patches"
TEMPLATES = ROOT / "templates"
MINIATURE = ROOT / "tests" / "upstream"
"""trees of a small Ollama and llama.cpp, written by us"""
