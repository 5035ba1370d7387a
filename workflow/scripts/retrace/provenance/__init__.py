"""Provenance of finished experiments: RO-Crates, and packed experiments that run elsewhere."""
