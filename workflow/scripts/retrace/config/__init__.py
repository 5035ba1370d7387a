"""Typed settings: datasets, splits, networks, families, and their compatibility."""
