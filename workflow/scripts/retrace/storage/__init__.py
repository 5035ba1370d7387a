"""Volumes, writers, manifests, journals of blocks, shards and their assembly."""
