"""Sections distorted in a known way, as a precomputed layer; beside it what is known of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.alignment.stack_sampling import DEFECTS, DISPLACEMENT, as_uint8
from retrace.config.alignment import GEOMETRY
from retrace.errors import ConfigError
from retrace.formats.precomputed import check_inside
from retrace.geometry import NmBox, Triple, VoxelBox, triple
from retrace.progress import progress
from retrace.storage.precomputed_writer import LayerWriter, plan_layer
from retrace.storage.volumes import Volume, open_volume
from retrace.storage.zarr_writer import create_volume, writing
from retrace.synthetic.distorted_sections import Distortion, distort
from retrace.synthetic.neurites import generate

CHUNK: Triple = (1, 256, 256)
IMAGE = "image"
"""The array that the layer is written from, in a store that is dropped then."""


def make_sections(
    settings: Mapping[str, Any], raw: Volume | None, layer: Path, truth: Path
) -> None:
    """Distorts sections one by one; `settings`: made, seed, voxel_size_nm.

    Without `raw` they are generated. ConfigError or DataError where they cannot be.
    """
    made = settings["made"]
    distortion = Distortion(**{key: made[key] for key in GEOMETRY})
    source = raw or generated(made, settings, distortion)
    box = checked_box(source, made["roi_nm"], distortion)
    with writing(truth) as partial:
        scratch = truth.with_name(f".{truth.stem}.image.zarr")
        shutil.rmtree(scratch, ignore_errors=True)
        _write(source, box, distortion, settings["seed"], partial, scratch)
    image = open_volume(scratch, IMAGE)
    with writing(layer) as folder:
        plan = plan_layer(image, image.box, labels=False, compress=True)
        work = layer.with_name(f".{layer.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        LayerWriter(folder, work, plan).write(image, 1)
    shutil.rmtree(work)
    shutil.rmtree(scratch)


def generated(
    made: Mapping[str, Any], settings: Mapping[str, Any], distortion: Distortion
) -> Volume:
    """Neurites, larger than what is asked for by as far as tissue may be moved."""
    shape, far = made["phantom_shape"], distortion.reach_px
    if shape is None:
        raise ConfigError("sections are neither generated (`phantom_shape`) nor read from a volume")
    size = triple(settings["voxel_size_nm"])
    raw, _ = generate((shape[0], shape[1] + 2 * far, shape[2] + 2 * far), size, settings["seed"])
    return Volume(raw, size, (0, -far * size[1], -far * size[2]), "phantom")


def checked_box(raw: Volume, roi_nm: Mapping[str, Any] | None, distortion: Distortion) -> VoxelBox:
    """The voxels that are distorted, at least two sections with more than their margin."""
    box = raw.box
    if roi_nm is not None:
        check_inside(raw.name, box, raw.voxel_size_nm, roi_nm)
        box = NmBox(triple(roi_nm["offset"]), triple(roi_nm["shape"])).to_voxels(raw.voxel_size_nm)
    far = distortion.reach_px
    if box.shape[0] < 2 or min(box.shape[1:]) <= 2 * far:
        raise ConfigError(
            f"{raw.name}: {list(box.shape)} voxels are no sections to distort: two or more are "
            f"needed, and more than {2 * far} px of each, for tissue is moved by up to {far} px"
        )
    return box


def _write(
    raw: Volume, box: VoxelBox, distortion: Distortion, seed: int, truth: Path, scratch: Path
) -> None:
    """Image, displacement and defects of every section; the margin is left out."""
    far = distortion.reach_px
    inner = box.grow((0, -far, -far))
    place: dict[str, Any] = {
        "voxel_size_nm": raw.voxel_size_nm,
        "offset_nm": inner.to_nm(raw.voxel_size_nm).offset,
    }
    image = create_volume(scratch, IMAGE, shape=inner.shape, chunks=CHUNK, dtype=np.uint8, **place)
    known = create_volume(
        truth, DISPLACEMENT, shape=(2, *inner.shape), chunks=(2, *CHUNK), dtype=np.float32, **place
    )
    labels = create_volume(truth, DEFECTS, shape=inner.shape, chunks=CHUNK, dtype=np.uint8, **place)
    sections = progress(_sections(raw, box), box.shape[0], "make", "sections")
    for number, section in enumerate(sections):
        rng = np.random.default_rng((seed, number))
        shown, found, field = distort(torch.from_numpy(section), rng, distortion)
        image[number] = np.round(shown.numpy() * 255).astype(np.uint8)
        known[:, number] = field.numpy()
        labels[number] = found.numpy()


def _sections(raw: Volume, box: VoxelBox) -> Iterator[np.ndarray]:
    """One section after the other, (H, W) float32 in [0, 1]."""
    for z in range(box.offset[0], box.end[0]):
        data = raw.read(VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:])))[0]
        yield as_uint8(raw, data).astype(np.float32) / 255
