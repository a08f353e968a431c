"""Which type for K and V of each layer loses least within a machine's memory: measured, chosen and measured again."""
