"""Kinds of labels. Apart from `objects`, because planning needs them where only Snakemake is."""

from __future__ import annotations

KINDS = ("ids", "cells", "membranes", "classes")
NUMBERED = ("ids", "classes")
"""Kinds whose values are read as they are: numbers of objects, or of classes."""
