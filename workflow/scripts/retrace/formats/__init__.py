"""One file per data format that is read."""
