"""Releases as files that anyone can check."""
