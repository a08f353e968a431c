"""Models and caches: memory, compatibility of a model with a cache type, quality of the types."""
