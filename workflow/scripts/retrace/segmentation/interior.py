"""Affinities from a map of cell interiors, so that boundary predictions can be segmented too.

The affinity of two neighbours is the smaller of their probabilities of being inside a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retrace.planning.segment_settings import DIRECT_NEIGHBORS
from retrace.storage.volumes import Volume


@dataclass(frozen=True)
class InteriorAffinities:
    """Direct affinities (3, Z, Y, X), computed when they are read.

    `boundary`: an array (C, Z, Y, X) whose channel 0 is the interior. The first voxel on each axis
    is its own neighbour.
    """

    boundary: Any

    @property
    def reader(self) -> Any:
        """The reader of a streamed map; None for a map on this machine."""
        return getattr(self.boundary, "reader", None)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(DIRECT_NEIGHBORS), *self.boundary.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.boundary.dtype)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The affinities of a box; `key`: all channels, then slices of z, y and x."""
        channels, *box = key
        low = [max(part.start - 1, 0) for part in box]
        wide = (slice(begin, part.stop) for begin, part in zip(low, box, strict=True))
        interior = np.asarray(self.boundary[(0, *wide)])
        missing = [(int(part.start == 0), 0) for part in box]
        grown = np.pad(interior, missing, mode="edge")
        own = grown[1:, 1:, 1:]
        near = (grown[:-1, 1:, 1:], grown[1:, :-1, 1:], grown[1:, 1:, :-1])
        return np.stack([np.minimum(own, neighbour) for neighbour in near])[channels]


def from_interior(volume: Volume) -> Volume:
    """The affinities (3, Z, Y, X) of a boundary map (C, Z, Y, X), at the same world position."""
    return replace(volume, array=InteriorAffinities(volume.array))
