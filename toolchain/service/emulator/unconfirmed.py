"""What the emulator does on the word of users and documents, unseen on a Mac, each with the way to see it there.

docs/explanation/emulator.md lists the same statements.
"""

from __future__ import annotations

from ...core.records import record


@record
class Unconfirmed:
    """A behaviour of launchd as the emulator models it. `test` says what to do on a Mac, with LABEL in gui/UID."""

    id: str
    statement: str
    test: str


BEHAVIOURS = tuple(
    Unconfirmed(id=name, statement=statement, test=test)
    for name, statement, test in (
        (
            "kickstart-kills",
            "`kickstart -k` ends the old instance with SIGKILL and answers when the new one was started.",
            "Load a script that traps TERM and writes a file; `launchctl kickstart -k`: the file must not appear, and "
            "`print` shows another pid at once.",
        ),
        (
            "kickstart-running",
            "`kickstart` of a running service answers 0 and changes nothing.",
            "`launchctl kickstart gui/UID/LABEL; echo $?` twice: 0, or 36 or 37, and the same pid.",
        ),
        (
            "kickstart-throttle",
            "`kickstart` starts a job that waits for its ThrottleInterval at once.",
            "Let a KeepAlive job with `exit 1` reach `spawn scheduled`, then kickstart it: `runs` grows at once.",
        ),
        (
            "kill-restarts",
            "After `launchctl kill SIGTERM`, KeepAlive starts the job again, and nothing sends SIGKILL.",
            "`launchctl kill SIGTERM` on a job that traps TERM and stays: it must still run after ExitTimeOut.",
        ),
        (
            "teardown-codes",
            "During a teardown bootstrap answers 37 while the process ends, and 5 while only the label lingers.",
            "bootout a job that takes 3 s to end, and bootstrap it in a loop: write down the codes.",
        ),
        (
            "exit-timeout-default",
            "ExitTimeOut is 5 s when the plist does not say.",
            "bootout a job without the key that ignores TERM, and time its end; `print` shows `exit timeout`.",
        ),
        (
            "spawn-failure",
            "A program that cannot be started counts as a run that ended with 78.",
            "bootstrap a plist with a Program that does not exist: `print` shows `last exit code`.",
        ),
        (
            "absent-domain-code",
            "In an absent domain bootstrap answers 125, and every other verb 112 (125 on newer macOS, by a setting).",
            "Over SSH without a login at the screen: `launchctl print gui/UID; echo $?`, and a bootstrap.",
        ),
        (
            "session-type-refused",
            "bootstrap answers 134 where the plist's session types lack the domain's, and a plist without them is for "
            "Aqua and for system.",
            "Over SSH bootstrap a plist without LimitLoadToSessionType into user/UID (134), and with sudo into system "
            "(0); then one with only Aqua into system.",
        ),
        (
            "login-loads-aqua",
            "A login at the screen loads all agents for Aqua into gui/UID, also those that run in user/UID, and none "
            "into user/UID.",
            "Over SSH bootstrap an agent for all sessions into user/UID, log in at the screen, and print both domains.",
        ),
        (
            "logout-keeps-user",
            "A logout ends gui/UID, answers 124 meanwhile, and leaves user/UID with its jobs until the next boot.",
            "Log in over SSH and at the screen, log out at the screen, and print both domains over SSH.",
        ),
        (
            "boot-empties-user",
            "After a boot user/UID exists with the user's first session, and holds none of the user's agents.",
            "bootstrap an agent into user/UID, reboot, log in over SSH only, and print the label in user/UID.",
        ),
        (
            "disable-per-domain",
            "Disable records belong to one domain, and outlive a boot.",
            "`launchctl disable user/UID/LABEL`, then `print-disabled` of gui/UID and user/UID, before and after a "
            "reboot. On a Mac both may show the same records.",
        ),
        (
            "not-root-codes",
            "Without root, system and other users' domains can be printed; bootstrap there answers 5, and kickstart, "
            "bootout, enable, disable and kill 1.",
            "As an ordinary user: each of the verbs on a label in system, with its code.",
        ),
        (
            "user-name-agents",
            "UserName counts in system only; an agent runs as the user of its domain, with all groups of that user.",
            "Load `id` with UserName of another user into gui/UID, and with sudo into system.",
        ),
        (
            "log-opened-by-user",
            "StandardOutPath is opened, and created, by the job's user.",
            "With sudo load a daemon with UserName and a log in a folder of mode 0755 that root owns: it cannot start.",
        ),
        (
            "environment-bare",
            "A job gets PATH, XPC_SERVICE_NAME and its plist's variables. On a Mac an agent gets HOME, USER, SHELL and "
            "TMPDIR besides.",
            "Load `env` into gui/UID, user/UID and (with sudo and UserName) system, and read the logs.",
        ),
        (
            "full-disk",
            "A job whose log cannot be opened ends with 78, and KeepAlive tries again at every throttle interval.",
            "Point StandardOutPath into a small disk image, fill it, kill the job, make room, and print it.",
        ),
    )
)
