"""How much memory a model takes with each cache type, and what fits: see `plan`."""
