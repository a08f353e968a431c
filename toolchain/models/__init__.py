"""What a model asks of a cache: its memory, its compatibility with a cache type, the quality of the types."""
