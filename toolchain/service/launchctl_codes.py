"""The meanings of launchctl's exit codes, and hints.

Apple does not document them; the meanings were collected from public issue trackers. The driver interprets them, the
emulator returns them.
"""

from __future__ import annotations

from collections.abc import Sequence

NOT_PERMITTED = 1
NO_SUCH_PROCESS = 3
INPUT_OUTPUT = 5
IN_PROGRESS = 36
ALREADY_IN_PROGRESS = 37
USAGE = 64
DOMAIN_ABSENT = 112
UNKNOWN_SERVICE = 113
DISABLED = 119
BAD_OWNERSHIP = 122
TEARDOWN = 124
WRONG_DOMAIN = 125
MANY_ERRORS = 133
WRONG_SESSION = 134
QUARANTINED = 155

TEXTS = {
    NOT_PERMITTED: "Operation not permitted",
    NO_SUCH_PROCESS: "No such process",
    INPUT_OUTPUT: "Input/output error",
    IN_PROGRESS: "Operation now in progress",
    ALREADY_IN_PROGRESS: "Operation already in progress",
    USAGE: "Usage error",
    DOMAIN_ABSENT: "Could not find domain",
    UNKNOWN_SERVICE: "Could not find service",
    DISABLED: "Service is disabled",
    BAD_OWNERSHIP: "Path had bad ownership/permissions",
    TEARDOWN: "Domain is being torn down",
    WRONG_DOMAIN: "Domain does not support specified action",
    MANY_ERRORS: "Multiple errors",
    WRONG_SESSION: "Service cannot load in this session type",
    QUARANTINED: "Program is quarantined",
}

_HEADLESS = "on a Mac that nobody logs in to, set deploy.domain to system and run it with sudo"
_ELSEWHERE = {
    "gui": f"log in at its screen, or set deploy.domain to user/UID over SSH; {_HEADLESS}",
    "user": f"{_HEADLESS}; with a login at its screen, set deploy.domain to gui/UID",
    "system": "run it with sudo; without root, set deploy.domain to gui/UID at its screen",
}
"""what to try when the domain of that kind cannot take the service; never that domain itself"""
_HINTS = {
    NOT_PERMITTED: "the system domain and those of other users need root: run it with sudo",
    INPUT_OUTPUT: "wait a moment and try again; `plutil -lint` checks the plist",
    DISABLED: "`launchctl enable` the service, then try again",
    BAD_OWNERSHIP: "the plist must belong to you (to root for the system domain) and have mode 0644",
    TEARDOWN: "you are logging out; try again after the next login",
    QUARANTINED: "`xattr -dr com.apple.quarantine` the release directory, if you trust its origin",
}

SESSION_TYPES = {"gui": "Aqua", "user": "Background", "system": "System"}
"""session type of each kind of domain, as a property list's LimitLoadToSessionType names it"""

PROGRESSING = frozenset({IN_PROGRESS, ALREADY_IN_PROGRESS})
"""launchd is at it already: no failure"""
TRANSIENT = PROGRESSING | {INPUT_OUTPUT}
"""codes of bootstrap while the same label is still being torn down"""


def session_type(domain: str) -> str:
    """Aqua for gui/501, Background for user/501, System."""
    return SESSION_TYPES[domain.partition("/")[0]]


def hint(code: int, domain: str, session_types: Sequence[str] = ()) -> str:
    """What to try after `code` in `domain`; empty if unknown. `session_types` are those of the property list."""
    kind = domain.partition("/")[0]
    if code in (DOMAIN_ABSENT, WRONG_DOMAIN):
        return _ELSEWHERE.get(kind, "")
    if code == WRONG_SESSION:
        stated = ", ".join(session_types) or "Aqua (it has no LimitLoadToSessionType)"
        return f"{domain} is a {session_type(domain)} session, and the plist is for {stated}; {_ELSEWHERE[kind]}"
    return _HINTS.get(code, "")


def meaning(code: int) -> str:
    """`37, Operation already in progress`."""
    return f"{code}, {TEXTS[code]}" if code in TEXTS else str(code)
