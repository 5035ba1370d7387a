"""What each job reads, writes and depends on: typed, without torch and without Snakemake."""
