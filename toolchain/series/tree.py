"""A tree to which the series is applied."""

from __future__ import annotations

from ..core.records import record
from ..sources import eras
from ..sources.repository import Repository
from ..stages import Target


@record
class Tree:
    """A pristine tree to render onto. Its files are named by their paths in the target itself.

    In an era without a repository of llama.cpp's own, llama.cpp is a part of Ollama's tree, where the era places it.
    """

    target: Target
    repository: Repository
    commit: str
    version: str
    """the version that a part's `serves` is matched with: a build number, or Ollama's version"""
    era: str = eras.NEWEST
    """name of the era of Ollama's tree"""

    def place(self, path: str) -> str:
        """The path in the repository of a file or folder of the target."""
        return eras.named(self.era).place(path) if self.target == "llama.cpp" else path

    def read(self, path: str) -> bytes | None:
        """Content of a file of the target; None where the tree has no such file. Raises `FetchFailed`."""
        return self.repository.read_blob(self.commit, self.place(path))

    def paths(self, under: str = "") -> list[str]:
        """All files of the target, or those below the folder `under`."""
        found = self.repository.paths(self.commit, self.place(under)) if under else self.repository.paths(self.commit)
        return [path for place in found if (path := self.origin(place)) is not None]

    def contents(self, *paths: str) -> dict[str, str]:
        """Git ids of the contents of those files that the tree has; of a folder, of all files in it."""
        places = [self.place(path) for path in paths]
        listed = self.repository.git("ls-tree", "-r", "-z", "--full-tree", self.commit, "--", *places)
        entries = (entry.split("\t", 1) for entry in listed.split("\0")[:-1])
        return {path: words.split()[2] for words, place in entries if (path := self.origin(place)) is not None}

    def origin(self, place: str) -> str | None:
        """The path in the target of a file of the repository; None for a file that is not the target's."""
        return eras.named(self.era).origin(place) if self.target == "llama.cpp" else place
