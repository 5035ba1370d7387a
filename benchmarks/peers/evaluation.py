"""VOI and adapted Rand error of a segmentation in memory: ours and scikit-image's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import side_by_side
from inputs import cells
from side_by_side import Comparison, Contender, Work


def make(folder: Path) -> None:
    import numpy as np

    np.save(folder / "truth.npy", cells().astype(np.int64))
    np.save(folder / "segments.npy", cells(cell_voxels=1500, seed=2).astype(np.int64))


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np

    from retrace.evaluation.contingency import count_block
    from retrace.evaluation.scores import score

    segments, truth = (np.load(folder / f"{n}.npy") for n in ("segments", "truth"))

    def work() -> Any:
        values = score(count_block(segments, truth))
        return [values[n] for n in ("voi_split", "voi_merge", "adapted_rand_error")]

    return work


def with_skimage(folder: Path) -> Work:
    import numpy as np
    from skimage.metrics import adapted_rand_error, variation_of_information

    segments, truth = (np.load(folder / f"{n}.npy") for n in ("segments", "truth"))

    def work() -> Any:
        split, merge = variation_of_information(truth, segments, ignore_labels=[0])
        error, _, _ = adapted_rand_error(truth, segments, ignore_labels=[0])
        return [float(split), float(merge), float(error)]

    return work


def difference(ours: Any, theirs: Any) -> str:
    away = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return f"{away:.1e} at most (VOI {ours[0]:.3f} + {ours[1]:.3f}, error {ours[2]:.3f})"


COMPARISON = Comparison(
    file=__file__,
    title="VOI and adapted Rand error, 64 × 128 × 128 voxels",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("scikit-image 0.26.0", with_skimage, ("scikit-image==0.26.0",)),
    ),
    amount=1.048576,
    unit="Mvoxel/s",
    difference=difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
