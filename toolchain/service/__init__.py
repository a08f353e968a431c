"""What keeps a program running: service managers, and the programs that they are given.

`manager.py` and `unit.py` say what deploy needs of either; each implementation is one file.
"""
