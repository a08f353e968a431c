"""The tasks of `./inv`, a module for each collection."""
