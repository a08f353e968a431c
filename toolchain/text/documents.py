"""The documents of a packed release."""

from __future__ import annotations

from ..publishing.attestation import Attested
from .dispatch import as_text


@as_text.register
def _attested(found: Attested) -> str:
    """One line for each document."""
    lines = [f"{found.release}: {len(found.documents)} documents in {found.folder}"]
    for role, one in found.documents.items():
        result = f"  {found.results[role]}" if role in found.results else ""
        lines.append(f"  {role:<13} {one.size:>9}  {one.sha256[:16]}  {one.name}{result}")
    modules = f"{found.go_modules} Go modules" if found.go_modules else "no Go modules: bin/ollama does not state any"
    return "\n".join([*lines, f"  {modules}"])
