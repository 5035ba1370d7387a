"""Volumes, writers, manifests, journals of finished blocks, shards and their assembly."""
