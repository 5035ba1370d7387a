"""Tiled prediction of whole volumes; serves every network with a context, a stride and heads."""
