"""A reference without training: a watershed of smoothed raw, with parameters from validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from retrace.errors import DataError
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.curve import pooled
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.scores import Scores, score
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume

SMOOTHING = (1.0, 2.0)
"""Gaussian sigmas to try, in units of the finest voxel edge."""
SEED_WINDOWS = (10.0, 20.0, 40.0, 80.0)
"""Edges of the windows in which a seed is the maximum, in units of the finest voxel edge."""
MAX_VOXELS = 24_000_000
"""Larger regions are not computed: the watershed needs about 40 bytes of memory per voxel."""


@dataclass(frozen=True)
class WatershedParameters:
    """Smoothing (sigma of the Gaussian) and spacing of seeds, nm."""

    sigma_nm: float
    seed_window_nm: float

    def as_dict(self) -> dict[str, float]:
        """The parameters as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class WatershedRegion:
    """Raw and ground truth of one region, and the box on which the trained result is scored."""

    raw: Volume
    ground_truth: GroundTruth
    box: VoxelBox


def parameter_grid(voxel_size_nm: Sequence[float]) -> Iterator[WatershedParameters]:
    """All parameters to try for a voxel size (z, y, x), nm."""
    finest = float(min(voxel_size_nm))
    for sigma, window in product(SMOOTHING, SEED_WINDOWS):
        yield WatershedParameters(sigma * finest, window * finest)


def raw_watershed(
    raw: np.ndarray, voxel_size_nm: Sequence[float], parameters: WatershedParameters
) -> np.ndarray:
    """Segments (Z, Y, X) of raw (Z, Y, X) with dark membranes, without any training.

    Raw is smoothed by the same distance in nm on each axis. Seeds are its brightest voxels; the
    watershed floods from them towards darker voxels and stops at membranes.
    """
    voxel = np.array(voxel_size_nm, np.float64)
    smooth = ndimage.gaussian_filter(raw.astype(np.float32), parameters.sigma_nm / voxel)
    window = np.maximum(1, np.round(parameters.seed_window_nm / voxel)).astype(int)
    seeds, _ = ndimage.label(ndimage.maximum_filter(smooth, tuple(window)) == smooth)
    return np.asarray(watershed(-smooth, seeds))


def score_region(region: WatershedRegion, parameters: WatershedParameters) -> Scores:
    """The scores of the raw watershed on the region."""
    return score(count_volumes(_segment(region, parameters), region.ground_truth).table)


def choose_parameters(regions: Sequence[WatershedRegion]) -> WatershedParameters:
    """The parameters of the smallest VOI sum over the validation regions, weighted by voxels."""
    tried = list(parameter_grid(regions[0].raw.voxel_size_nm))
    curves = [[score_region(region, item) for item in tried] for region in regions]
    return tried[int(np.argmin([item["voi_sum"] for item in pooled(curves)]))]


def too_large(regions: Sequence[WatershedRegion]) -> str | None:
    """Why the watershed is not computed for these regions; None if it is."""
    voxels = max(region.box.size for region in regions)
    if voxels <= MAX_VOXELS:
        return None
    return f"not computed: a region has {voxels} voxels, more than {MAX_VOXELS} held in memory"


def _segment(region: WatershedRegion, parameters: WatershedParameters) -> Volume:
    raw, labels = region.raw, region.ground_truth.labels
    if raw.voxel_size_nm != labels.voxel_size_nm:
        raise DataError(
            f"{raw.name} has voxels of {list(raw.voxel_size_nm)} nm, the labels of "
            f"{list(labels.voxel_size_nm)} nm; the raw watershed needs equal ones"
        )
    segments = raw_watershed(raw.read(region.box, fill=0), raw.voxel_size_nm, parameters)
    offset_nm = region.box.to_nm(raw.voxel_size_nm).offset
    return Volume(segments, raw.voxel_size_nm, offset_nm, "untrained watershed")
