"""Synthetic distortions as a precomputed layer of sections, with their ground truth in a zarr."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.alignment.stack_sampling import DEFECTS, DISPLACEMENT, raw_as_uint8
from retrace.errors import ConfigError
from retrace.formats.precomputed import check_inside
from retrace.geometry import NmBox, Triple, VoxelBox, checked_voxel_size
from retrace.progress import progress
from retrace.storage.precomputed_writer import LayerWriter, plan_layer
from retrace.storage.volumes import Volume, open_volume
from retrace.storage.zarr_writer import create_volume, writing
from retrace.synthetic.distorted_sections import Distortion, distort
from retrace.synthetic.neurites import generate_neurites

CHUNK: Triple = (1, 256, 256)
IMAGE = "image"
"""The array of the temporary store that the layer is copied from."""


def write_distorted_layer(
    raw: Volume,
    roi_nm: NmBox | None,
    distortion: Distortion,
    seed: int,
    *,
    layer: Path,
    ground_truth: Path,
) -> None:
    """Distorts the sections of `raw` (S, H, W) in `roi_nm`, or all of it, one by one.

    `layer` receives the images with all mips, `ground_truth` the arrays `displacement` (2, S, H, W)
    px and `defects` (S, H, W). The margin that distortions reach into is cut off. ConfigError if
    fewer than two sections, or less than the margin, remain; DataError if the box leaves `raw`.
    """
    box = checked_box(raw, roi_nm, distortion)
    temporary = ground_truth.with_name(f".{ground_truth.stem}.image.zarr")
    with writing(ground_truth) as partial:
        shutil.rmtree(temporary, ignore_errors=True)
        _write_arrays(raw, box, distortion, seed, partial, temporary)
    image = open_volume(temporary, IMAGE)
    with writing(layer) as folder:
        plan = plan_layer(image, image.box, labels=False, compress=True)
        work = layer.with_name(f".{layer.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        LayerWriter(folder, work, plan).write(image, 1)
    shutil.rmtree(work)
    shutil.rmtree(temporary)


def generated_sections(
    shape: Sequence[int], voxel_size_nm: Sequence[float], seed: int, distortion: Distortion
) -> Volume:
    """Generated neurites to distort: `shape` (S, H, W) is what remains after distortion."""
    size, far = checked_voxel_size(voxel_size_nm), distortion.reach_px
    raw, _ = generate_neurites((shape[0], shape[1] + 2 * far, shape[2] + 2 * far), size, seed)
    return Volume(raw, size, (0, -far * size[1], -far * size[2]), "phantom")


def checked_box(raw: Volume, roi_nm: NmBox | None, distortion: Distortion) -> VoxelBox:
    """The voxels to distort; ConfigError or DataError if they cannot be."""
    box = raw.box
    if roi_nm is not None:
        check_inside(raw.name, box, raw.voxel_size_nm, roi_nm)
        box = roi_nm.to_voxels(raw.voxel_size_nm)
    far = distortion.reach_px
    if box.shape[0] < 2 or min(box.shape[1:]) <= 2 * far:
        raise ConfigError(
            f"{raw.name}: {list(box.shape)} voxels are too few to distort: at least two sections "
            f"of more than {2 * far} px per side are needed, because tissue moves up to {far} px"
        )
    return box


def _write_arrays(
    raw: Volume, box: VoxelBox, distortion: Distortion, seed: int, ground_truth: Path, image: Path
) -> None:
    """Image, displacement and defects of every section, without the margin."""
    far = distortion.reach_px
    inner = box.grow((0, -far, -far))
    place: dict[str, Any] = {
        "voxel_size_nm": raw.voxel_size_nm,
        "offset_nm": inner.to_nm(raw.voxel_size_nm).offset,
    }
    shape, uint8 = inner.shape, np.uint8
    images = create_volume(image, IMAGE, shape=shape, chunks=CHUNK, dtype=uint8, **place)
    displacements = create_volume(
        *(ground_truth, DISPLACEMENT),
        shape=(2, *shape),
        chunks=(2, *CHUNK),
        dtype=np.float32,
        **place,
    )
    defects = create_volume(ground_truth, DEFECTS, shape=shape, chunks=CHUNK, dtype=uint8, **place)
    sections = progress(_sections(raw, box), box.shape[0], "make", "sections")
    for number, section in enumerate(sections):
        rng = np.random.default_rng((seed, number))
        distorted, labels, displacement = distort(torch.from_numpy(section), rng, distortion)
        images[number] = np.round(distorted.numpy() * 255).astype(uint8)
        displacements[:, number] = displacement.numpy()
        defects[number] = labels.numpy()


def _sections(raw: Volume, box: VoxelBox) -> Iterator[np.ndarray]:
    """One section after the other, (H, W) float32 in [0, 1]."""
    for z in range(box.offset[0], box.end[0]):
        data = raw.read(VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:])))[0]
        yield raw_as_uint8(raw, data).astype(np.float32) / 255
