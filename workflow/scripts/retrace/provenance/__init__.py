"""RO-Crates, packed experiments and what they say about the jobs of a run."""
