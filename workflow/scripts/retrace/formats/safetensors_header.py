"""The metadata of safetensors files, for planning, which has neither torch nor safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retrace.reading import if_intact

LONGEST = 100_000_000
"""Longest header that safetensors itself reads, bytes."""


def header_metadata(path: Path) -> dict[str, Any]:
    """The JSON values that a model file holds besides tensors; empty if it is absent or damaged."""
    return if_intact(lambda: _metadata(path), path) or {}


def _metadata(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, LONGEST)))
    return {key: json.loads(text) for key, text in header["__metadata__"].items()}
