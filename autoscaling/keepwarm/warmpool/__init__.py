"""Warm pools: minimum replicas on a schedule. The object alone; no controller yet."""
