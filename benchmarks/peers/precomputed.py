"""Writing ids as a precomputed layer (compressed_segmentation, gzip): ours and cloud-volume's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import side_by_side
from inputs import SHAPE, cells
from side_by_side import Comparison, Contender, Work

CHUNK = (64, 64, 64)


def make(folder: Path) -> None:
    import numpy as np

    np.save(folder / "labels.npy", cells())


def read_back(layer: Path) -> Any:
    """The voxels (Z, Y, X) of a layer, read by cloud-volume."""
    import cloudvolume
    import numpy as np

    volume = cloudvolume.CloudVolume(f"file://{layer}", progress=False)
    return np.asarray(volume[:]).squeeze(-1).T


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import numpy as np

    from retrace.geometry import VoxelBox
    from retrace.storage.layer_formats import ExportedLayer
    from retrace.storage.precomputed_writer import plan_precomputed
    from retrace.storage.volumes import Volume

    labels, layer, progress = np.load(folder / "labels.npy"), folder / "ours", folder / "progress"
    volume = Volume(labels, (8, 8, 8), (0, 0, 0), "labels")
    box = VoxelBox((0, 0, 0), SHAPE)
    exported = ExportedLayer(volume, box, "labels", labels=True, gzip=True, threads=1)

    def work() -> Any:
        for leftover in (layer, progress):
            shutil.rmtree(leftover, ignore_errors=True)
        _, write = plan_precomputed(exported)
        write(layer, progress)
        return lambda: read_back(layer)

    return work


def with_cloudvolume(folder: Path) -> Work:
    import numpy as np
    from cloudvolume import CloudVolume

    labels, layer = np.load(folder / "labels.npy"), folder / "theirs"
    info = CloudVolume.create_new_info(
        1, "segmentation", "uint64", "compressed_segmentation", (8, 8, 8), (0, 0, 0), SHAPE[::-1],
        chunk_size=CHUNK,
    )  # fmt: skip

    def work() -> Any:
        shutil.rmtree(layer, ignore_errors=True)
        volume = CloudVolume(f"file://{layer}", info=info, progress=False, compress="gzip")
        volume.commit_info()
        volume[:] = labels.T
        return lambda: read_back(layer)

    return work


def difference(ours: Any, theirs: Any) -> str:
    unequal = int((ours != theirs).sum())
    return f"{unequal} of {ours.size} voxels, read with cloud-volume"


COMPARISON = Comparison(
    file=__file__,
    title="precomputed layer of ids, 64 × 128 × 128 voxels",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("cloud-volume 12.15.2", with_cloudvolume, ("cloud-volume==12.15.2",)),
    ),
    amount=1.048576,
    unit="Mvoxel/s",
    difference=difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
