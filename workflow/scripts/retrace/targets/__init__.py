"""Training targets computed from labels: affinities, shape descriptors, boundaries, classes."""
