"""Samples training stacks from a volume of sections: random places, and which are rejected.

As SEAMLeSS's gen_stack.py, cv_sampler.py and clean_stack.py, with places in nm. A sample depends
only on the seed and its number.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.config.alignment_model import StackSet
from retrace.errors import ConfigError
from retrace.files import atomic_write
from retrace.formats.arrangement import innermost
from retrace.formats.precomputed import PrecomputedLayer, check_inside
from retrace.geometry import (
    NmBox,
    NmTriple,
    Triple,
    VoxelBox,
    in_nm,
    nm_triple,
    pixel_factor,
    triple,
)
from retrace.limits import JSON_BYTES, TEXT_BYTES
from retrace.reading import DamagedError, read_bytes, reading_content
from retrace.storage.value_checks import check_float, check_raw_type
from retrace.storage.volumes import Volume, mask_on_grid
from retrace.targets.ternary import ternary

DISPLACEMENT, DEFECTS = "displacement", "defects"
"""Arrays of a ground-truth store: (2, Z, Y, X) px, and (Z, Y, X) ternary labels."""


@dataclass(frozen=True)
class SampledStack:
    """One stack: the corner of its first voxel, nm (z, y, x), and arrays as in a data set."""

    corner_nm: NmTriple
    images: np.ndarray
    masks: np.ndarray | None = None
    fields: np.ndarray | None = None


class AtLeast:
    """An array-like that is 1 where another array is at least `value`, else 0."""

    def __init__(self, array: Any, value: int) -> None:
        self.array, self.value = array, value
        self.shape, self.dtype = array.shape, np.dtype(np.uint8)
        self.reader = getattr(array, "reader", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        return (np.asarray(self.array[key]) >= self.value).astype(np.uint8)


@dataclass(frozen=True)
class StackSources:
    """What stacks are read from: sections, and optionally a defect mask and ground truth.

    `bad`: a mask of defects, possibly with larger voxels. Ground truth: `displacement` (2, Z, Y, X)
    px and `defects` (Z, Y, X), ternary labels, both at mip 0, while the sections may be coarser.
    `near_px`: radius of the label 1 around bad voxels.
    """

    sections: Volume
    bad: Volume | None = None
    displacement: Volume | None = None
    defects: Volume | None = None
    near_px: int = 0


class StackSampler:
    """Draws stacks of `height` sections of `side` x `side` pixels.

    `settings`: a set of stacks, as in `stacks` of a dataset's `alignment`.
    """

    def __init__(self, sources: StackSources, settings: StackSet, split: str, seed: int) -> None:
        """ConfigError if no such stack fits, DataError if `roi_nm` leaves the volume."""
        self.sources, self.settings, self.split, self.seed = sources, settings, split, seed
        self.reject = settings.reject
        check_raw_type(sources.sections)
        layer = innermost(sources.sections.array)
        if isinstance(layer, PrecomputedLayer):
            layer.fill_missing = True
        self.shape = triple([settings.height, settings.side, settings.side])
        self.box = self._box()

    def _box(self) -> VoxelBox:
        """The box to draw from: the sections of the split in `roi_nm`."""
        volume, roi = self.sources.sections, self.settings.roi_nm
        box = volume.box
        if roi is not None:
            box_nm = NmBox(roi.offset, roi.shape)
            check_inside(volume.name, box, volume.voxel_size_nm, box_nm)
            box = box_nm.to_voxels(volume.voxel_size_nm)
        first, depth = sections_of_split(self.settings, self.split, box.shape[0])
        box = VoxelBox((box.offset[0] + first, *box.offset[1:]), (depth, *box.shape[1:]))
        if any(have < need for have, need in zip(box.shape, self.shape, strict=True)):
            raise ConfigError(
                f"{volume.name}: stacks of {list(self.shape)} (sections, rows, columns) do not fit "
                f"the {list(box.shape)} voxels there are for the {self.split} stacks; make `height`"
                " or `side` smaller, `roi_nm` larger, change `validation_fraction` or "
                "`test_fraction`, or take a finer `mip`"
            )
        return box

    def draw(self, number: int) -> SampledStack:
        """Stack `number`; ConfigError, with reasons, if all `attempts` places are rejected."""
        rng = np.random.default_rng((self.seed, SPLIT_SEEDS[self.split], number))
        reasons: Counter[str] = Counter()
        for _ in range(self.reject.attempts):
            room = [h - n for h, n in zip(self.box.shape, self.shape, strict=True)]
            offset = [
                o + int(rng.integers(r + 1)) for o, r in zip(self.box.offset, room, strict=True)
            ]
            sample = self.read(triple(offset))
            reason = self.rejection(sample)
            if reason is None:
                return sample
            reasons[reason] += 1
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise ConfigError(
            f"{self.sources.sections.name}: {self.reject.attempts} places were tried for stack "
            f"{number}, and all were rejected: {counts}. Choose another `roi_nm`, or relax `reject`"
        )

    def read_at(self, corner_nm: Sequence[float]) -> SampledStack:
        """The stack at a place, without checks; DataError if it leaves the volume."""
        return self.read(self.offset_of(corner_nm))

    def offset_of(self, corner_nm: Sequence[float]) -> Triple:
        """The voxel (z, y, x) at a place, nm."""
        size = self.sources.sections.voxel_size_nm
        return NmBox(nm_triple(corner_nm), (0, 0, 0)).to_voxels(size).offset

    def read(self, offset: Triple) -> SampledStack:
        """The stack whose first voxel is at `offset` (z, y, x)."""
        sections = self.sources.sections
        box = VoxelBox(offset, self.shape)
        corner = box.to_nm(sections.voxel_size_nm).offset
        images = raw_as_uint8(sections, sections.read(box))
        return SampledStack(corner, images, self._masks(box), self._fields(box))

    def _masks(self, box: VoxelBox) -> np.ndarray | None:
        """Ternary labels (S, H, W) from the mask and the known defects; None without either."""
        parts = []
        if self.sources.bad is not None:
            bad = mask_on_grid(self.sources.bad, box, self.sources.sections.voxel_size_nm)
            parts.append(ternary(torch.from_numpy(bad), self.sources.near_px).numpy())
        if self.sources.defects is not None:
            defects = self.sources.defects.read(self._ground_truth_box(box), fill=0)
            parts.append(coarser_labels(defects, self._factor()))
        return np.maximum.reduce(parts) if parts else None

    def _fields(self, box: VoxelBox) -> np.ndarray | None:
        """Known displacements (S, 2, H, W), pixels of the sections; None if unknown."""
        if self.sources.displacement is None:
            return None
        fine = self.sources.displacement.read(self._ground_truth_box(box), fill=0).swapaxes(0, 1)
        factor = self._factor()
        shape = (*fine.shape[:2], self.shape[1], factor, self.shape[2], factor)
        return np.asarray(fine.reshape(shape).mean((3, 5)) / factor, np.float32)

    def _factor(self) -> int:
        """Pixels of the ground truth per pixel of the sections."""
        displacement = self.sources.displacement
        assert displacement is not None
        return pixel_factor(self.sources.sections.voxel_size_nm, displacement.voxel_size_nm)

    def _ground_truth_box(self, box: VoxelBox) -> VoxelBox:
        """A box of the sections in the voxels of the ground truth."""
        displacement = self.sources.displacement
        assert displacement is not None
        return box.to_nm(self.sources.sections.voxel_size_nm).to_voxels(displacement.voxel_size_nm)

    def rejection(self, sample: SampledStack) -> str | None:
        """Why a stack is not used for training; None if it is."""
        images = sample.images
        if not images.any():
            return "black"
        if images.mean() < self.reject.least_mean:
            return "darker than least_mean"
        flat = images.reshape(len(images), -1)
        if (np.count_nonzero(flat, axis=1) / flat.shape[1]).min() < self.reject.least_filled:
            return "less filled than least_filled"
        if flat.std(axis=1).min() < self.reject.least_std:
            return "flatter than least_std"
        return self._mask_rejection(sample)

    def _mask_rejection(self, sample: SampledStack) -> str | None:
        if self.sources.bad is None or sample.masks is None:
            return None
        clean = np.count_nonzero(sample.masks < 2) / sample.masks.size
        return "less clean than least_clean" if clean < self.reject.least_clean else None


SPLIT_SEEDS = {"train": 0, "test": 1, "validation": 2}


def sections_of_split(settings: StackSet, split: str, depth: int) -> tuple[int, int]:
    """First section and number of sections of a split: training, then validation, then test."""
    tested = int(depth * settings.test_fraction)
    measured = int(depth * settings.validation_fraction) if settings.validation_count else 0
    trained = depth - measured - tested
    parts = {
        "train": (0, trained),
        "validation": (trained, measured),
        "test": (trained + measured, tested),
    }
    return parts[split]


def raw_as_uint8(volume: Volume, data: np.ndarray) -> np.ndarray:
    """Grey values 0 to 255 of raw `data` of a volume; floats in [0, 1] are scaled.

    DataError for floats outside [0, 1].
    """
    if data.dtype == np.uint8:
        return data
    check_float(volume, data)
    return np.round(data * 255).astype(np.uint8)


def coarser_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """Labels (S, H, W) downsampled by the maximum of `factor` x `factor` pixels."""
    sections, height, width = labels.shape
    shape = (sections, height // factor, factor, width // factor, factor)
    return np.asarray(labels.reshape(shape).max((2, 4)))


# ---------------------------------------------------------------- coordinates


def write_coordinates(path: Path, samples_nm: Sequence[NmTriple], shape_nm: NmTriple) -> None:
    """Saves the corners of stacks, nm (z, y, x), to read the same stacks at any mip."""
    content = {"shape_nm": list(shape_nm), "corners_nm": [list(corner) for corner in samples_nm]}
    atomic_write(path, json.dumps(content) + "\n")


def read_coordinates(
    path: Path, voxel_size_nm: NmTriple, shape: Triple, finest_nm: NmTriple
) -> list[NmTriple]:
    """Corners of stacks, nm (z, y, x), from such a file or SEAMLeSS's (x, y, z, extent, H) list.

    That list counts voxels of mip 0, of size `finest_nm`. ConfigError if the file is neither, or
    its stacks differ in size from `shape` voxels of `voxel_size_nm`.
    """
    content = read_bytes(path, JSON_BYTES)
    try:
        with reading_content(path, "give a file of gen_stack or a list of (x, y, z, extent, H)"):
            corners, stored = _coordinates(content.decode(), finest_nm)
    except DamagedError as error:
        raise ConfigError(str(error)) from error
    expected = in_nm(shape, voxel_size_nm)
    if stored - {expected}:
        raise ConfigError(
            f"{path} has stacks of {list(min(stored - {expected}))} nm, and the settings ask for "
            f"{list(expected)} nm (z, y, x); set `height` and `side` so that they agree"
        )
    return corners


def _coordinates(text: str, finest_nm: NmTriple) -> tuple[list[NmTriple], set[NmTriple]]:
    """The corners of stacks and their sizes, nm (z, y, x), in the text of either kind of file."""
    is_json = text.lstrip().startswith("{")
    if not is_json and len(text) > TEXT_BYTES:
        raise ValueError(f"it has more than {TEXT_BYTES} characters")
    content = json.loads(text) if is_json else ast.literal_eval(text)
    if isinstance(content, dict):
        corners = [nm_triple(corner) for corner in content["corners_nm"]]
        return corners, {nm_triple(content["shape_nm"])}
    corners = [in_nm((z, y, x), finest_nm) for x, y, z, *_ in content]
    return corners, {_extent_nm(entry, finest_nm) for entry in content}


def _extent_nm(entry: Sequence[int], finest_nm: NmTriple) -> NmTriple:
    """The size in nm of one stack of SEAMLeSS's list."""
    _, _, _, extent, height = entry
    return in_nm((height, extent, extent), finest_nm)
