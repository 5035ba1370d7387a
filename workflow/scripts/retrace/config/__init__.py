"""Typed settings: datasets, splits, networks, families, and which of them work together."""
