"""The meanings of launchctl's exit codes, and hints.

Apple does not document them; the meanings were collected from public issue trackers. The driver interprets them, the
emulator returns them.
"""

from __future__ import annotations

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

HINTS = {
    INPUT_OUTPUT: "wait a moment and try again; `plutil -lint` checks the plist",
    DISABLED: "`launchctl enable` the service, then try again",
    BAD_OWNERSHIP: "the plist must belong to you (to root for the system domain) and have mode 0644",
    TEARDOWN: "you are logging out; try again after the next login",
    WRONG_DOMAIN: "over SSH set deploy.domain to user/UID, or to system with sudo",
    WRONG_SESSION: "over SSH set deploy.domain to user/UID, or to system with sudo",
    QUARANTINED: "`xattr -dr com.apple.quarantine` the release directory, if you trust its origin",
}

TRANSIENT = frozenset({INPUT_OUTPUT, IN_PROGRESS, ALREADY_IN_PROGRESS})
"""codes of bootstrap while the same label is still being torn down"""


def meaning(code: int) -> str:
    """`37, Operation already in progress`."""
    return f"{code}, {TEXTS[code]}" if code in TEXTS else str(code)
