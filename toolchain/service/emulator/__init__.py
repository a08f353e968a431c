"""An emulator of launchd, for machines that have none: tests, rehearsals and Linux.

It speaks the `launchctl` command line (`python -m toolchain.service.emulator.launchctl`), parses real plists, and
really starts, restarts and stops processes. docs/explanation/emulator.md says what it models and where it may differ.
"""
