"""Local shape descriptors of one block of labels: ours, the original lsds, lsd-lite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import side_by_side
from inputs import cells
from side_by_side import Comparison, Contender, Work

SHAPE, VOXEL_NM, SIGMA_NM, DOWNSAMPLE = (32, 64, 64), (8, 8, 8), 80, 2


def make(folder: Path) -> None:
    import numpy as np

    np.save(folder / "labels.npy", cells(SHAPE).astype(np.int64))


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np
    import torch

    from retrace.targets.lsds import compute_lsds

    torch.set_num_threads(1)
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    return lambda: compute_lsds(labels, VOXEL_NM, SIGMA_NM, DOWNSAMPLE).numpy()


def original(folder: Path) -> Work:
    import gunpowder as gp
    import numpy as np
    from lsd.train.local_shape_descriptor import LsdExtractor

    labels = np.load(folder / "labels.npy")

    def work() -> Any:
        # A new extractor: it keeps what it computed for a shape.
        extractor = LsdExtractor((SIGMA_NM,) * 3, downsample=DOWNSAMPLE)
        return extractor.get_descriptors(labels, voxel_size=gp.Coordinate(VOXEL_NM))

    return work


def lsd_lite(folder: Path) -> Work:
    import numpy as np
    from lsd_lite import get_lsds

    labels = np.load(folder / "labels.npy")
    return lambda: get_lsds(labels, SIGMA_NM, VOXEL_NM, downsample=DOWNSAMPLE)


def difference(ours: Any, theirs: Any) -> str:
    import numpy as np

    away = np.abs(ours - theirs)
    return f"{away.mean():.1e} on average, {away.max():.1e} at most"


COMPARISON = Comparison(
    file=__file__,
    title="LSD targets, 32 × 64 × 64 voxels, σ 80 nm",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("lsds 0.1.3", original, ("lsds==0.1.3", "zarr<3", "setuptools<81")),
        Contender("lsd-lite 1.0.1", lsd_lite, ("lsd-lite==1.0.1",)),
    ),
    amount=0.131072,
    unit="Mvoxel/s",
    difference=difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
