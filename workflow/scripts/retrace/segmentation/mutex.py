"""Mutex watershed (Wolf et al. 2018) on affinities with any neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

import mwatershed
import numpy as np

from retrace.errors import ConfigError
from retrace.segmentation.fragments import highest_value


def biases(neighborhood: Sequence[Sequence[int]], adjacent: float, long_range: float) -> np.ndarray:
    """The bias of each channel, (C,): `adjacent` for direct neighbours, `long_range` for others."""
    return np.array(
        [adjacent if np.abs(offset).sum() == 1 else long_range for offset in neighborhood]
    )


def mutex_segments(
    affinities: np.ndarray, neighborhood: Sequence[Sequence[int]], bias: np.ndarray
) -> np.ndarray:
    """Segments (Z, Y, X) uint64 of affinities (C, Z, Y, X) over `neighborhood` (z, y, x).

    An edge of affinity a has the weight a - `bias` (C,): positive weights join two voxels, negative
    ones separate them; edges act in descending order of absolute weight. Voxels that no edge joins
    are 0. Raises ConfigError if channels and neighborhood do not match.
    """
    if len(neighborhood) != len(affinities):
        raise ConfigError(
            f"the prediction has {len(affinities)} affinity channels, the neighborhood of the "
            f"network lists {len(neighborhood)}; predict again with this network"
        )
    weights = affinities.astype(np.float64)
    weights /= highest_value(affinities)
    weights -= np.asarray(bias, dtype=np.float64)[:, None, None, None]
    offsets = [list(map(int, offset)) for offset in neighborhood]
    return np.asarray(mwatershed.agglom(weights, offsets), dtype=np.uint64)
