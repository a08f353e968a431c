"""A stand-in for Metal's device in a built release, and the proof that `verify` names its faults: see `__main__`."""
