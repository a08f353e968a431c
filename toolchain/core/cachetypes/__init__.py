"""The types of a KV cache: their table, and the grammar of the settings that name them.

It is in `core` because the configuration checks such settings and takes its defaults from the table.
"""
