"""A fork of llama.cpp compared with upstream: its age, its own work, and what a merge would do. Nothing is built."""
