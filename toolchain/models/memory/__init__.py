"""How much memory a model needs with each cache type, and what fits: see `plan`."""
