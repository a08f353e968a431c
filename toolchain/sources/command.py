"""git's command line, run by GitPython and isolated from the user's environment: every git of the toolkit runs here.

The operator's and the system's configuration is not read, except to open a repository (who may own it) and to fetch
(proxies, credentials); there the settings that could change a result are overridden. A GIT_DIR that a hook left in the
environment has no influence. The configuration of a repository that is only read is not read either: see `view`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from git import Git, GitCommandNotFound

from ..core.errors import MissingTool
from ..core.process import ask

_NEUTRAL = (
    *("core.autocrlf=false", "core.attributesFile=/dev/null", "core.hooksPath=/dev/null", "core.fsmonitor=false"),
    *("core.quotePath=false", "i18n.logOutputEncoding=UTF-8", "color.ui=false", "advice.detachedHead=false"),
    *("gc.auto=0", "maintenance.auto=false", "init.templateDir=", "log.showSignature=false"),
    *("diff.noprefix=false", "grep.column=false", "grep.lineNumber=false"),
    *("apply.whitespace=nowarn", "apply.ignoreWhitespace=no"),
    *("merge.conflictStyle=merge", "merge.directoryRenames=conflict", "merge.renames=true"),
    "core.bigFileThreshold=512m",
    "attr.tree=?",  # no name of a tree: newer versions of git read the attributes of HEAD in a bare repository
    "safe.bareRepository=all",  # "explicit" would reject discovered ones
)
_HERMETIC = {
    **{"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_COUNT": "0"},
    **{"GIT_CONFIG_PARAMETERS": "", "GIT_ATTR_NOSYSTEM": "1"},
}
"""no configuration but the repository's and our own"""
_INHERITED = (
    *("GIT_SSH", "GIT_SSL_", "GIT_ASKPASS", "GIT_PROXY", "GIT_CONFIG_", "GIT_HTTP", "GIT_TRACE", "GIT_EXEC_PATH"),
    "GIT_PYTHON_",
)


def program() -> str:
    """The git on PATH; empty if there is none."""
    found = shutil.which("git") or ""
    return "" if _is_stub(found) else found


@cache
def _is_stub(path: str) -> bool:
    """Whether running this opens a dialogue, as macOS's own git does without developer tools."""
    return sys.platform == "darwin" and path.startswith("/usr/bin/") and not ask(("xcode-select", "-p"))


def forget_leaked() -> None:
    """Drop git variables that a hook left in our environment; they would select another repository."""
    for name in [*os.environ]:
        if name.startswith("GIT_") and not name.startswith(_INHERITED):
            del os.environ[name]


class Command(Git):
    """git, run in a folder. `options` are its own, as in `git_dir=...`; `offline`: never fetch.

    `configured`: with the configuration of the operator and the system.
    """

    def __init__(self, folder: Path, *, offline: bool = False, configured: bool = False, **options: str) -> None:
        forget_leaked()
        super().__init__(folder)
        self.set_persistent_git_options(c=_NEUTRAL, **options)
        self.update_environment(GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0", GIT_NO_REPLACE_OBJECTS="1")
        if not configured:
            self.update_environment(**_HERMETIC)
        if offline:
            # Partial clones fetch missing objects by themselves; old versions of git know only the second variable.
            self.update_environment(GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="none")

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As in GitPython. Raises `MissingTool`."""
        if kwargs.get("universal_newlines"):
            # A server's messages may not be UTF-8, and git's transport processes must end with git.
            kwargs |= {"errors": "replace", "start_new_session": True}
        try:
            if not program():
                raise FileNotFoundError("git")
            return super().execute(*args, **kwargs)
        except (GitCommandNotFound, FileNotFoundError, PermissionError) as error:
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
