"""Fragments from affinities, as the lsd repository makes them: seeded watershed of distances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import side_by_side
from inputs import affinities, cells, partition_difference
from side_by_side import Comparison, Contender, Work

SEED_DISTANCE = 10


def make(folder: Path) -> None:
    import numpy as np

    np.save(folder / "affinities.npy", affinities(cells()))


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np

    from retrace.segmentation.fragments import watershed_fragments

    given = np.load(folder / "affinities.npy")
    return lambda: watershed_fragments(given, in_xy=False)


def as_lsd(folder: Path, watershed: Callable[..., Any]) -> Work:
    """lsd.post.fragments: maxima of the distance in a window are seeds; boundaries are filled."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt, label, maximum_filter

    given = np.load(folder / "affinities.npy")

    def work() -> Any:
        inside = np.mean(given, axis=0) > 0.5
        distances = distance_transform_edt(inside)
        seeds, _ = label(maximum_filter(distances, SEED_DISTANCE) == distances)
        return watershed(distances.max() - distances, seeds)

    return work


def with_mahotas(folder: Path) -> Work:
    import mahotas

    return as_lsd(folder, mahotas.cwatershed)


def with_skimage(folder: Path) -> Work:
    from skimage.segmentation import watershed

    return as_lsd(folder, watershed)


COMPARISON = Comparison(
    file=__file__,
    title="fragments, 64 × 128 × 128 voxels",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("mahotas 1.4.19", with_mahotas, ("mahotas==1.4.19", "scipy==1.17.1")),
        Contender("scikit-image 0.26.0", with_skimage, ("scikit-image==0.26.0", "scipy==1.17.1")),
    ),
    amount=1.048576,
    unit="Mvoxel/s",
    difference=partition_difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
