"""git's command line, run by GitPython and isolated from the user's environment.

The operator's configuration (hooks, line endings, colours, signing) has no influence, nor has a GIT_DIR that a hook
left in the environment.
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
    "safe.bareRepository=all",  # "explicit" would reject discovered ones
)
_INHERITED = (
    *("GIT_SSH", "GIT_SSL_", "GIT_ASKPASS", "GIT_PROXY", "GIT_CONFIG_", "GIT_HTTP", "GIT_TRACE", "GIT_EXEC_PATH"),
    "GIT_PYTHON_",
)


def forget_leaked() -> None:
    """Drop git variables that a hook left in our environment; they would select another repository."""
    for name in [*os.environ]:
        if name.startswith("GIT_") and not name.startswith(_INHERITED):
            del os.environ[name]


class Command(Git):
    """git, run in a folder. `options` are its own, as in `git_dir=...`; `offline`: never fetch."""

    def __init__(self, folder: Path, *, offline: bool = False, **options: str) -> None:
        forget_leaked()
        super().__init__(folder)
        self.set_persistent_git_options(c=_NEUTRAL, **options)
        self.update_environment(GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0")
        if offline:
            # Partial clones fetch missing objects by themselves; old versions of git know only the second variable.
            self.update_environment(GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="none")

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As in GitPython. Raises `MissingTool`."""
        if kwargs.get("universal_newlines"):
            # A server's messages may not be UTF-8, and git's transport processes must end with git.
            kwargs |= {"errors": "replace", "start_new_session": True}
        try:
            return super().execute(*args, **kwargs)
        except GitCommandNotFound as error:
            raise MissingTool("git: no such program", hint="install git (macOS: xcode-select --install)") from error

    def _parse_object_header(self, header_line: str) -> tuple[str, str, int]:
        if not header_line:
            raise BrokenPipeError("the reader of objects died")  # GitPython would report a missing object
        return super()._parse_object_header(header_line)

    def run(
        self, command: str, *args: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> tuple[int, bytes, str]:
        """Exit status, stdout and stderr of `git COMMAND`."""
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            how = {"with_extended_output": True, "with_exceptions": False}
            whole = {"stdout_as_string": False, "strip_newline_in_stdout": False}
            ended: tuple[int, bytes, str] = getattr(self, command)(*args, istream=given, env=env, **how, **whole)
        return ended
