"""Releases as files that anyone can check: packed, signed, attested, published, promoted, verified."""
