"""The cache types that there are."""
