"""Segmentation: affinities to fragments, a region graph with merge scores, and segments."""
