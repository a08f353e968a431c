"""Damaged and hostile input, given to all that reads it: see `subject`."""
