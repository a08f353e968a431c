"""The types of a KV cache: the table of all there are, and the grammar of the settings that name them.

It lies in `core`, since the configuration checks such settings and takes its defaults from the table.
"""
