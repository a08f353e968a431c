"""git's command line as GitPython runs it, cut off from what surrounds a run.

Whatever the operator has configured (hooks, line endings, colours, signing) has no influence here, and nor
has a GIT_DIR that a hook left in the environment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from git import Git, GitCommandNotFound

from ..core.errors import MissingTool

_NEUTRAL = (
    *("core.autocrlf=false", "core.attributesFile=/dev/null", "core.hooksPath=/dev/null", "core.fsmonitor=false"),
    *("core.quotePath=false", "i18n.logOutputEncoding=UTF-8", "color.ui=false", "advice.detachedHead=false"),
    *("gc.auto=0", "maintenance.auto=false", "init.templateDir=", "log.showSignature=false"),
    *("diff.noprefix=false", "grep.column=false", "grep.lineNumber=false"),
    *("apply.whitespace=nowarn", "apply.ignoreWhitespace=no"),
    *("merge.conflictStyle=merge", "merge.directoryRenames=conflict", "merge.renames=true"),
    "safe.bareRepository=all",  # the setting forbids to find one by chance; ours are named
)
_INHERITED = (
    *("GIT_SSH", "GIT_SSL_", "GIT_ASKPASS", "GIT_PROXY", "GIT_CONFIG_", "GIT_HTTP", "GIT_TRACE", "GIT_EXEC_PATH"),
    "GIT_PYTHON_",
)


def forget_leaked() -> None:
    """Drop from our environment what a hook left there: git and GitPython would take it for the repository meant."""
    for name in [*os.environ]:
        if name.startswith("GIT_") and not name.startswith(_INHERITED):
            del os.environ[name]


class Command(Git):
    """git, run in a folder. `options` are its own, as in `git_dir=...`; `offline` forbids partial clones to fetch."""

    def __init__(self, folder: Path, *, offline: bool = False, **options: str) -> None:
        forget_leaked()
        super().__init__(folder)
        self.set_persistent_git_options(c=_NEUTRAL, **options)
        self.update_environment(GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0")
        if offline:
            # Partial clones fetch missing objects on their own; older gits know only the second way to forbid it.
            self.update_environment(GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="none")

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As GitPython does. Raises `MissingTool`."""
        if kwargs.get("universal_newlines"):
            # A server's words need not be UTF-8, and what git starts to reach it is to end with it.
            kwargs |= {"errors": "replace", "start_new_session": True}
        try:
            return super().execute(*args, **kwargs)
        except GitCommandNotFound as error:
            raise MissingTool("git: no such program", hint="install git (macOS: xcode-select --install)") from error

    def _parse_object_header(self, header_line: str) -> tuple[str, str, int]:
        if not header_line:
            raise BrokenPipeError("the reader of objects died")  # which GitPython does not tell from a missing object
        return super()._parse_object_header(header_line)

    def run(
        self, command: str, *args: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> tuple[int, bytes, str]:
        """How `git COMMAND` ended, its stdout and its stderr."""
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            how = {"with_extended_output": True, "with_exceptions": False}
            whole = {"stdout_as_string": False, "strip_newline_in_stdout": False}
            ended: tuple[int, bytes, str] = getattr(self, command)(*args, istream=given, env=env, **how, **whole)
        return ended
