"""Service managers, and the programs that they keep running.

`manager.py` and `unit.py` are the interfaces that deploy uses; each implementation is one file.
"""
