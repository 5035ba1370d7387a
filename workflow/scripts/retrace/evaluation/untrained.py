"""The untrained yardstick: a watershed of smoothed raw, its parameters chosen like a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from retrace.errors import DataError
from retrace.evaluation.counting import Truth, count_volumes
from retrace.evaluation.curve import pooled
from retrace.evaluation.scores import Scores, score
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume

SMOOTHING = (1.0, 2.0)
"""Gaussian sigmas tried, in units of the finest voxel edge."""
SEED_WINDOWS = (10.0, 20.0, 40.0, 80.0)
"""Edges of the windows in which a seed is the minimum, in units of the finest voxel edge."""
MAX_VOXELS = 24_000_000
"""Larger regions are not computed: the watershed holds the region in memory, some 40 B/voxel."""


@dataclass(frozen=True)
class Parameters:
    """Smoothing and seed spacing of the watershed, nm."""

    sigma_nm: float
    seed_window_nm: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Region:
    """Raw and truth of one region, and the voxels that the trained result is scored on."""

    raw: Volume
    truth: Truth
    box: VoxelBox


def parameter_grid(voxel_size_nm: Sequence[int]) -> Iterator[Parameters]:
    """All parameters that are tried for a voxel size (z, y, x)."""
    finest = float(min(voxel_size_nm))
    for sigma, window in product(SMOOTHING, SEED_WINDOWS):
        yield Parameters(sigma * finest, window * finest)


def raw_watershed(
    raw: np.ndarray, voxel_size_nm: Sequence[int], parameters: Parameters
) -> np.ndarray:
    """Segments (z, y, x) from raw (z, y, x) with dark membranes: no learning at all.

    Raw is smoothed isotropically in nm; brightness falls towards membranes, so the watershed
    floods the darkness from its local minima.
    """
    voxel = np.array(voxel_size_nm, np.float64)
    smooth = ndimage.gaussian_filter(raw.astype(np.float32), parameters.sigma_nm / voxel)
    window = np.maximum(1, np.round(parameters.seed_window_nm / voxel)).astype(int)
    seeds, _ = ndimage.label(ndimage.maximum_filter(smooth, tuple(window)) == smooth)
    return np.asarray(watershed(-smooth, seeds))


def score_untrained(region: Region, parameters: Parameters) -> Scores:
    """Scores of the raw watershed on the region's voxels."""
    return score(count_volumes(_segment(region, parameters), region.truth).table)


def choose_parameters(regions: Sequence[Region]) -> Parameters:
    """The parameters of the least VOI sum over the validation regions, pooled by voxels."""
    tried = list(parameter_grid(regions[0].raw.voxel_size_nm))
    curves = [[score_untrained(region, item) for item in tried] for region in regions]
    return tried[int(np.argmin([item.voi_sum for item in pooled(curves)]))]


def too_large(regions: Sequence[Region]) -> str | None:
    """Why the watershed is not computed for these regions, or None."""
    voxels = max(region.box.size for region in regions)
    if voxels <= MAX_VOXELS:
        return None
    return f"not computed: a region has {voxels} voxels, more than {MAX_VOXELS} held in memory"


def _segment(region: Region, parameters: Parameters) -> Volume:
    raw = region.raw
    if raw.voxel_size_nm != region.truth.labels.voxel_size_nm:
        raise DataError(
            f"{raw.name} has voxels of {list(raw.voxel_size_nm)} nm, the labels of "
            f"{list(region.truth.labels.voxel_size_nm)} nm; the raw watershed needs equal ones"
        )
    segments = raw_watershed(raw.read(region.box, fill=0), raw.voxel_size_nm, parameters)
    offset_nm = region.box.to_nm(raw.voxel_size_nm).offset
    return Volume(segments, raw.voxel_size_nm, offset_nm, "untrained watershed")
