"""Mutex watershed of affinities with long-range edges: ours, mwatershed itself, bioimage-cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import side_by_side
from inputs import LONG_RANGE, affinities, cells, partition_difference
from side_by_side import Comparison, Contender, Work

SHAPE, BIAS = (32, 96, 96), 0.5


def make(folder: Path) -> None:
    import numpy as np

    np.save(folder / "affinities.npy", affinities(cells(SHAPE), LONG_RANGE))


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np

    from retrace.segmentation.mutex import biases, mutex_segments

    given = np.load(folder / "affinities.npy")
    bias = biases(LONG_RANGE, BIAS, BIAS)
    return lambda: mutex_segments(given, LONG_RANGE, bias)


def with_mwatershed(folder: Path) -> Work:
    import mwatershed
    import numpy as np

    given, offsets = np.load(folder / "affinities.npy"), [list(o) for o in LONG_RANGE]
    return lambda: mwatershed.agglom(given.astype(np.float64) - BIAS, offsets)


def with_bioimage_cpp(folder: Path) -> Work:
    """All attractive edges are direct ones here: affinities below the bias do not separate them."""
    import numpy as np
    from bioimage_cpp.segmentation import mutex_watershed

    given, offsets = np.load(folder / "affinities.npy"), [list(o) for o in LONG_RANGE]

    def work() -> Any:
        weights = given.copy()
        weights[3:] = 1 - weights[3:]
        return mutex_watershed(weights, offsets, 3)

    return work


COMPARISON = Comparison(
    file=__file__,
    title="mutex watershed, 32 × 96 × 96 voxels, 6 edges each",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("mwatershed 0.5.4", with_mwatershed, ("mwatershed==0.5.4",)),
        Contender("bioimage-cpp 0.10.0", with_bioimage_cpp, ("bioimage-cpp==0.10.0",)),
    ),
    amount=0.294912,
    unit="Mvoxel/s",
    difference=partition_difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
