"""The machine that a run is on: what it is, and what it has of what a run needs."""
