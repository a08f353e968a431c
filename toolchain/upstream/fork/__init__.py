"""A fork of llama.cpp held against upstream: its age, its own work, and what a merge would do. Nothing is built."""
