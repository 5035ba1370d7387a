"""Meshes and skeletons of segments, computed block by block."""
