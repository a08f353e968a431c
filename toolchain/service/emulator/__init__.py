"""An emulator of launchd, for machines without launchd: tests, rehearsals and Linux.

It has the command line of `launchctl` (`python -m toolchain.service.emulator.launchctl`), parses real plists, and
really starts, restarts and stops processes. docs/explanation/emulator.md says what it models and where it may differ.
"""
