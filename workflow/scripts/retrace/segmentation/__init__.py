"""From affinities to fragments, the region graph with merge scores, and segments."""
