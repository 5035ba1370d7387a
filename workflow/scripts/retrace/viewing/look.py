"""How a view opens a segmentation: which ids are selected, and in which colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume
from retrace.viewing.colours import PALETTE, colour_numbers
from retrace.viewing.layers import ViewLayer

LARGEST = 20
"""Ids that are selected."""
SAMPLE = (64, 256, 256)
"""Voxels (z, y, x) in the middle of the volume whose ids are looked at."""


@dataclass(frozen=True)
class Look:
    """The selected ids, the largest first, and colours by id; both for neuroglancer."""

    largest: tuple[int, ...]
    colours: Mapping[int, str]


def look_of(layer: ViewLayer) -> Look:
    """Selects the largest ids in the middle of a volume; there, neighbours differ in colour.

    Ids that are only elsewhere have the viewer's own colours.
    """
    # As the viewer sees them: ids below 0 become those near 2^64.
    ids = layer.volume.read(middle(layer.volume)).astype(np.uint64)
    present, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    largest = tuple(int(i) for i in present[order] if i)[:LARGEST]
    return Look(largest, {i: PALETTE[number] for i, number in colour_numbers(ids).items()})


def middle(volume: Volume) -> VoxelBox:
    """The box in the middle of a volume, `SAMPLE` voxels or the whole edge."""
    box = volume.box
    return box.central([min(n, limit) for n, limit in zip(box.shape, SAMPLE, strict=True)])
