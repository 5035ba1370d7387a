"""The library of the retrace workflow: connectomics experiments from the bucket to scores."""

__version__ = "0.1.0"
