"""The report: what was run, on what, what came out, and how it compares, as one page."""
