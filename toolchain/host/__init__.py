"""The machine: its properties, and which requirements it meets."""
