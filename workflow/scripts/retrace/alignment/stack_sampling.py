"""Training stacks drawn from a volume of sections: where they lie, and which are refused.

What SEAMLeSS's gen_stack.py, cv_sampler.py and clean_stack.py do, with places in nm. A sample
depends on the seed and its number alone, not on the others nor on the order they are read in.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.errors import ConfigError, DataError
from retrace.files import atomic_write
from retrace.formats.precomputed import PrecomputedLayer, check_inside
from retrace.geometry import NmBox, Triple, VoxelBox, triple
from retrace.storage.value_checks import check_raw, check_raw_type
from retrace.storage.volumes import Volume, mask_on_grid
from retrace.targets.ternary import ternary

DISPLACEMENT, DEFECTS = "displacement", "defects"
"""Arrays of a store of known truth: (2, Z, Y, X) px and (Z, Y, X) ternary."""


@dataclass(frozen=True)
class Sample:
    """One stack as read: where its first voxel lies, nm z y x, and arrays as in a data set."""

    corner_nm: Triple
    images: np.ndarray
    masks: np.ndarray | None = None
    fields: np.ndarray | None = None


class AtLeast:
    """An array as booleans: where it reaches a value."""

    def __init__(self, array: Any, value: int) -> None:
        self.array, self.value = array, value
        self.shape, self.dtype = array.shape, np.dtype(np.uint8)
        self.reader = getattr(array, "reader", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        return (np.asarray(self.array[key]) >= self.value).astype(np.uint8)


@dataclass(frozen=True)
class Sources:
    """What stacks are read from: sections, and where there are any, defects and known truth.

    `bad`: booleans, its voxels may be larger. `displacement` (2, Z, Y, X) px and `defects` (ternary
    labels) have voxels of mip 0, while the sections may be of a coarser one. `near_px`: radius of
    the label 1 around what is bad.
    """

    sections: Volume
    bad: Volume | None = None
    displacement: Volume | None = None
    defects: Volume | None = None
    near_px: int = 0


class Sampler:
    """Draws stacks of `height` sections of `side` x `side` pixels; settings as in `stacks` of the
    schema."""

    def __init__(
        self, sources: Sources, settings: Mapping[str, Any], split: str, seed: int
    ) -> None:
        """ConfigError where no such stack fits, DataError where the box leaves the volume."""
        self.sources, self.settings, self.split, self.seed = sources, settings, split, seed
        self.reject: Mapping[str, Any] = settings["reject"]
        check_raw_type(sources.sections)
        if isinstance(sources.sections.array, PrecomputedLayer):
            sources.sections.array.fill_missing = True
        self.shape = triple([settings["height"], settings["side"], settings["side"]])
        self.box = self._box()

    def _box(self) -> VoxelBox:
        """Where stacks may lie: the box asked for, and of that the sections of the split."""
        volume, roi = self.sources.sections, self.settings["roi_nm"]
        box = volume.box
        if roi is not None:
            check_inside(volume.name, box, volume.voxel_size_nm, roi)
            place = NmBox(triple(roi["offset"]), triple(roi["shape"]))
            box = place.to_voxels(volume.voxel_size_nm)
        held_out = int(box.shape[0] * self.settings["test_fraction"])
        begin, depth = box.offset[0], box.shape[0] - held_out
        if self.split == "test":
            begin, depth = begin + depth, held_out
        box = VoxelBox((begin, *box.offset[1:]), (depth, *box.shape[1:]))
        if any(have < need for have, need in zip(box.shape, self.shape, strict=True)):
            raise ConfigError(
                f"{volume.name}: stacks of {list(self.shape)} (sections, rows, columns) do not fit "
                f"the {list(box.shape)} voxels there are for the {self.split} stacks; make `height`"
                " or `side` smaller, `roi_nm` larger, or take a finer `mip`"
            )
        return box

    def draw(self, number: int) -> Sample:
        """Sample `number`; ConfigError where so many places were refused, with the reasons."""
        rng = np.random.default_rng((self.seed, SPLIT_SEEDS[self.split], number))
        reasons: Counter[str] = Counter()
        for _ in range(self.reject["attempts"]):
            room = [h - n for h, n in zip(self.box.shape, self.shape, strict=True)]
            offset = [
                o + int(rng.integers(r + 1)) for o, r in zip(self.box.offset, room, strict=True)
            ]
            sample = self.read(triple(offset))
            reason = self.refusal(sample)
            if reason is None:
                return sample
            reasons[reason] += 1
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise ConfigError(
            f"{self.sources.sections.name}: {self.reject['attempts']} places were tried for stack "
            f"{number}, and all were refused: {told}. Choose another `roi_nm`, or loosen `reject`"
        )

    def read_at(self, corner_nm: Sequence[int]) -> Sample:
        """The stack at a place, whatever is there; DataError where it leaves the volume."""
        size = self.sources.sections.voxel_size_nm
        box = NmBox(triple(corner_nm), (0, 0, 0)).to_voxels(size)
        return self.read(box.offset)

    def read(self, offset: Triple) -> Sample:
        """The stack whose first voxel is at `offset` (z, y, x)."""
        sections = self.sources.sections
        box = VoxelBox(offset, self.shape)
        corner = box.to_nm(sections.voxel_size_nm).offset
        images = as_uint8(sections, sections.read(box))
        return Sample(corner, images, self._masks(box), self._fields(box))

    def _masks(self, box: VoxelBox) -> np.ndarray | None:
        """Ternary labels (S, H, W) of the mask layer and the known defects; None without either."""
        parts = []
        if self.sources.bad is not None:
            bad = mask_on_grid(self.sources.bad, box, self.sources.sections.voxel_size_nm)
            parts.append(ternary(torch.from_numpy(bad), self.sources.near_px).numpy())
        if self.sources.defects is not None:
            known = self.sources.defects.read(self._fine(box), fill=0)
            parts.append(coarser_labels(known, self._factor()))
        return np.maximum.reduce(parts) if parts else None

    def _fields(self, box: VoxelBox) -> np.ndarray | None:
        """Known displacements (S, 2, H, W) px of the sections as read."""
        if self.sources.displacement is None:
            return None
        fine = self.sources.displacement.read(self._fine(box), fill=0).swapaxes(0, 1)
        factor = self._factor()
        shape = (*fine.shape[:2], self.shape[1], factor, self.shape[2], factor)
        return np.asarray(fine.reshape(shape).mean((3, 5)) / factor, np.float32)

    def _factor(self) -> int:
        """Pixels of the known truth along one pixel of the sections."""
        truth = self.sources.displacement
        assert truth is not None
        return self.sources.sections.voxel_size_nm[1] // truth.voxel_size_nm[1]

    def _fine(self, box: VoxelBox) -> VoxelBox:
        """A box of the sections in the voxels of the known truth."""
        truth = self.sources.displacement
        assert truth is not None
        return box.to_nm(self.sources.sections.voxel_size_nm).to_voxels(truth.voxel_size_nm)

    def refusal(self, sample: Sample) -> str | None:
        """Why a stack is not to be trained on, None where it is."""
        images = sample.images
        if not images.any():
            return "black"
        if images.mean() < self.reject["least_mean"]:
            return "darker than least_mean"
        flat = images.reshape(len(images), -1)
        if (np.count_nonzero(flat, axis=1) / flat.shape[1]).min() < self.reject["least_filled"]:
            return "less filled than least_filled"
        if flat.std(axis=1).min() < self.reject["least_std"]:
            return "flatter than least_std"
        return self._masked(sample)

    def _masked(self, sample: Sample) -> str | None:
        if self.sources.bad is None or sample.masks is None:
            return None
        clean = np.count_nonzero(sample.masks < 2) / sample.masks.size
        return "less clean than least_clean" if clean < self.reject["least_clean"] else None


SPLIT_SEEDS = {"train": 0, "test": 1}


def as_uint8(volume: Volume, data: np.ndarray) -> np.ndarray:
    """Grey values 0 to 255; float raw in [0, 1] is scaled (DataError for other floats)."""
    if data.dtype == np.uint8:
        return data
    if data.size and (np.isnan(data).any() or data.min() < 0 or data.max() > 1):
        check_raw(volume)
    return np.round(data * 255).astype(np.uint8)


def coarser_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """The greatest label of each `factor` x `factor` pixels of (S, H, W)."""
    sections, height, width = labels.shape
    shape = (sections, height // factor, factor, width // factor, factor)
    return np.asarray(labels.reshape(shape).max((2, 4)))


# ---------------------------------------------------------------- coordinates


def write_coordinates(path: Path, samples_nm: Sequence[Triple], shape_nm: Triple) -> None:
    """Corners of stacks, nm z y x, from which the same stacks can be read again at any mip."""
    content = {"shape_nm": list(shape_nm), "corners_nm": [list(corner) for corner in samples_nm]}
    atomic_write(path, json.dumps(content) + "\n")


def read_coordinates(
    path: Path, voxel_size_nm: Triple, shape: Triple, finest_nm: Triple
) -> list[Triple]:
    """Corners in nm from such a file, or from SEAMLeSS's list of (x, y, z, extent, H).

    That list counts voxels of mip 0, whose size is `finest_nm`. ConfigError where the file is
    neither, or its stacks are of another size than `shape` voxels of `voxel_size_nm`.
    """
    text = path.read_text()
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else ast.literal_eval(text)
        if isinstance(content, dict):
            corners = [triple(corner) for corner in content["corners_nm"]]
            stored = {triple(content["shape_nm"])}
        else:
            corners = [
                triple([z * finest_nm[0], y * finest_nm[1], x * finest_nm[2]])
                for x, y, z, *_ in content
            ]
            stored = {_extent_nm(entry, finest_nm) for entry in content}
    except (ValueError, SyntaxError, KeyError, TypeError, DataError) as error:
        raise ConfigError(
            f"{path} holds no coordinates ({error}): neither what gen_stack wrote nor a list of "
            "(x, y, z, extent, H)"
        ) from error
    wanted = triple([n * v for n, v in zip(shape, voxel_size_nm, strict=True)])
    if stored - {wanted}:
        raise ConfigError(
            f"{path} is of stacks of {list(min(stored - {wanted}))} nm, and those asked for have "
            f"{list(wanted)} nm (z, y, x); set `height` and `side` so that they agree"
        )
    return corners


def _extent_nm(entry: Sequence[int], finest_nm: Triple) -> Triple:
    """The size of one stack of SEAMLeSS's list."""
    _, _, _, extent, height = entry
    return height * finest_nm[0], extent * finest_nm[1], extent * finest_nm[2]
