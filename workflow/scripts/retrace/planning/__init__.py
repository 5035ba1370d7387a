"""Inputs, settings and dependencies of each job: typed, without torch and Snakemake."""
