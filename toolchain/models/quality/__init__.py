"""How good the cache types are: per bit, on drawn and on real data, and in a model's own predictions."""
