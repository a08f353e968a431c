"""Validation: whether a cache type answers as well as f16 with one model, on this machine."""
