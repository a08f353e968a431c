"""The quality of cache types: on random and real data, and in a model's predictions."""
