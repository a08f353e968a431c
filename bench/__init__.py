"""Measurements that are run by hand: speed, memory, growth of the history. Their figures lie in docs."""
