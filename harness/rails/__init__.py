"""Costs of a tick: counts, times, and comparisons of both."""
