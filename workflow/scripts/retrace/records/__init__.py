"""From what a finished job computed its outputs: records, and digests of what files contain."""
