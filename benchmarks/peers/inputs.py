"""Generated volumes of the comparisons: cells of irregular shape, and affinities between voxels."""

from __future__ import annotations

from typing import Any

SHAPE = (64, 128, 128)
CELL_VOXELS = 4000
LONG_RANGE = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -9, 0), (0, 0, -9))


def cells(shape: tuple[int, ...] = SHAPE, cell_voxels: int = CELL_VOXELS, seed: int = 0) -> Any:
    """Labels 1 ... n, uint64, of `shape`: each voxel belongs to the nearest of random points."""
    import numpy as np
    from scipy.spatial import cKDTree

    random = np.random.default_rng(seed)
    points = random.random((int(np.prod(shape)) // cell_voxels, 3)) * shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    _, nearest = cKDTree(points).query(grid)
    return (nearest.reshape(shape) + 1).astype(np.uint64)


def affinities(labels: Any, offsets: Any = LONG_RANGE[:3]) -> Any:
    """Affinities (C, Z, Y, X) float32 in [0, 1] of each voxel and the one at each offset: whether
    both have one label, blurred, with noise, as a network predicts them.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(1)
    channels = []
    for offset in offsets:
        other = np.roll(labels, [-step for step in offset], axis=(0, 1, 2))
        blurred = gaussian_filter((labels == other).astype(np.float32), 1)
        # Steeper than blurred, so that boundaries are a few voxels thick.
        noisy = 2 * blurred - 1 + 0.1 * random.standard_normal(labels.shape)
        channels.append(np.clip(noisy, 0, 1).astype(np.float32))
    return np.stack(channels)


def partition_difference(ours: Any, theirs: Any) -> str:
    """How two segmentations of one volume differ, whatever their ids are."""
    from skimage.metrics import variation_of_information

    split, merge = variation_of_information(theirs, ours)
    counts = f"{len(set(ours.ravel().tolist()))} and {len(set(theirs.ravel().tolist()))} segments"
    if split == merge == 0:
        return f"same partition, {counts}"
    return f"VOI {split:.2g} + {merge:.2g}, {counts}"
