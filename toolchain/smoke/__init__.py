"""Checks of this repository itself: every file parses, no file holds a secret, workflows are sound."""
