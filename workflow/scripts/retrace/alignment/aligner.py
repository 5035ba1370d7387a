"""Aligns a whole stack: each section to the aligned ones before it, tile by tile, resumable.

The first section does not move. Each further one gets a field (2, Y, X) px, which is stored with
the warped section. Only a tile with its margin is in memory, never a whole section.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.config.seamless_network import StackAlignment
from retrace.displacement import length, upsample, vote, warp
from retrace.errors import DataError
from retrace.files import atomic_write, read_json
from retrace.geometry import VoxelBox, blocks, pixel_factor, triple, whole_voxels
from retrace.networks.seamless import Seamless
from retrace.progress import progress
from retrace.reading import if_intact
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.shard_grid import shard_edges
from retrace.storage.unfinished import open_unfinished, write_complete_shards
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

FIELD, ALIGNED, RENDERED = "field", "aligned", "rendered"
"""Arrays of the result: fields (2, Z, Y, X) float32 px, images (Z, Y, X) uint8 at the mip of the
fields, and the images at `render_mip` where that is finer."""
CHUNK = 256
SHARD = 4096
"""Edge of the part of a section that is one file of zarr format 3."""


@dataclass(frozen=True)
class AlignmentPlan:
    """How a stack is aligned: the settings `align` of a network of the family seamless."""

    tile: int
    overlap: int
    targets: int
    temperature: float
    flip_average: bool
    max_displacement: int

    @classmethod
    def of(cls, settings: StackAlignment) -> AlignmentPlan:
        """The plan in the settings `align`."""
        return cls(**{key: getattr(settings, key) for key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Window:
    """A tile of a section, `core`, and the pixels read for it, `read`, both slices of (y, x)."""

    core: tuple[slice, slice]
    read: tuple[slice, slice]

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core as slices of the pixels read."""
        pairs = zip(self.core, self.read, strict=True)
        y, x = (slice(c.start - s.start, c.stop - s.start) for c, s in pairs)
        return y, x


def windows(shape: Sequence[int], tile: int, overlap: int, unit: int) -> list[Window]:
    """Tiles that cover a section (H, W), each read with `overlap` px around it.

    The pixels read begin at a multiple of `unit`, the side of a pixel of the coarsest level, and
    their sides are multiples of it, so that pooling groups the same pixels in every tile. Beyond
    the section they end at the next multiple: there is nothing to match, and small sections took
    more than twice the time.
    """
    step = -(-tile // unit) * unit
    margin = -(-overlap // unit) * unit
    whole = [-(-n // unit) * unit for n in shape]
    tiles = []
    for y in range(0, shape[0], step):
        for x in range(0, shape[1], step):
            ends = [min(b + step, n) for b, n in zip((y, x), shape, strict=True)]
            reach = [
                min(-(-end // unit) * unit + margin, n) for end, n in zip(ends, whole, strict=True)
            ]
            core = (slice(y, ends[0]), slice(x, ends[1]))
            read = (slice(max(0, y - margin), reach[0]), slice(max(0, x - margin), reach[1]))
            tiles.append(Window(core, read))
    return tiles


def read_section_window(volume: Volume, z: int, window: Sequence[slice]) -> Tensor:
    """A window (y, x) of section `z`, (1, 1, h, w) in [0, 1]; 0 outside.

    `z`, y and x count from the volume's first voxel.
    """
    y, x = window
    offset = volume.box.offset
    box = VoxelBox(
        (offset[0] + z, offset[1] + y.start, offset[2] + x.start),
        (1, y.stop - y.start, x.stop - x.start),
    )
    data = volume.read(box, fill=0)[0]
    values = torch.from_numpy(data.astype(np.float32))
    return (values / 255 if data.dtype == np.uint8 else values)[None, None]


def as_uint8(image: Tensor) -> np.ndarray:
    """An image (1, 1, H, W) in [0, 1] as rounded grey values (H, W) uint8."""
    return np.asarray((image[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


class AlignedStack:
    """The store of an aligned stack while it is written, and its journal of finished sections."""

    def __init__(
        self,
        store: Path,
        work: Path,
        sections: Volume,
        fine: Volume | None,
        *,
        zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT,
    ) -> None:
        """Resumes the store of an earlier run, or creates it; `fine`: a finer volume to render."""
        self.zarr_format = zarr_format
        self.store, self.sections, self.fine = store, sections, fine
        begun = work / "begun.json"
        shape = list(sections.box.shape)
        if not (begun.is_file() and read_json(begun) == shape and store.is_dir()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            self._create()
            atomic_write(begun, json.dumps(shape))
        self.group: Any = open_unfinished(store)
        self.names = [FIELD, ALIGNED] + ([RENDERED] if fine else [])
        self.journal = Journal(work)
        for leftover in store.rglob("*.partial"):
            leftover.unlink()

    def _create(self) -> None:
        sections, fine = self.sections, self.fine
        chunk = (1, CHUNK, CHUNK)
        shape, size = sections.box.shape, sections.voxel_size_nm
        place: dict[str, Any] = {"voxel_size_nm": size, "offset_nm": sections.offset_nm}
        place |= self._files(shape)
        field_shape = (2, *shape)
        create_volume(
            self.store, FIELD, shape=field_shape, chunks=(2, *chunk), dtype="float32", **place
        )
        create_volume(self.store, ALIGNED, shape=shape, chunks=chunk, dtype="uint8", **place)
        if fine is not None:
            place = {"voxel_size_nm": fine.voxel_size_nm, "offset_nm": fine.offset_nm}
            place |= self._files(fine.box.shape)
            create_volume(
                self.store, RENDERED, shape=fine.box.shape, chunks=chunk, dtype="uint8", **place
            )

    def _files(self, shape: Sequence[int]) -> dict[str, Any]:
        """Format and shards of an array (Z, Y, X); a shard is in one section: written once."""
        shards = shard_edges(shape, (1, CHUNK, CHUNK), largest=(1, SHARD, SHARD))
        return {"zarr_format": self.zarr_format, "shards": shards}

    def _box(self, z: int) -> VoxelBox:
        """The box of section `z` in the journal."""
        _, height, width = self.sections.box.shape
        return VoxelBox((z, 0, 0), (1, height, width))

    def _tiles(self, name: str, z: int) -> Iterator[np.ndarray]:
        """Section `z` of an array, in tiles."""
        array = self.group[name]
        height, width = array.shape[-2:]
        for box in blocks(VoxelBox((z, 0, 0), (1, height, width)), (1, 2048, 2048)):
            yield np.asarray(array[(..., *box.slices())])

    def note(self, z: int, **facts: float) -> None:
        """Records a section as finished, and writes its shards."""
        for name in self.names:
            array = self.group[name]
            whole = [slice(0, size) for size in array.shape]
            write_complete_shards(array, (*whole[:-3], slice(z, z + 1), *whole[-2:]))
        self.journal.note(self._box(z), self._checksum(z), **facts)

    def _checksum(self, z: int) -> str:
        return checksum(tile for name in self.names for tile in self._tiles(name, z))

    def has_section(self, z: int) -> bool:
        """Whether a section is finished and its bytes are unchanged."""
        expected = self.journal.checksum_of(self._box(z))
        if expected is None:
            return False
        stored = if_intact(lambda: self._checksum(z), self.store)
        if stored is None:
            for name in self.names:
                shape = triple([1, *self.group[name].shape[-2:]])
                drop_damaged(self.group[name], self.store / name, VoxelBox((z, 0, 0), shape))
        return stored == expected

    def seconds(self) -> float:
        """Seconds spent on all sections but the first, in all runs."""
        depth = self.sections.box.shape[0]
        facts = [self.journal.facts(self._box(z)) for z in range(1, depth)]
        return float(sum(section.get("seconds", 0) for section in facts))

    def volume(self, name: str) -> Volume:
        """An array of the store as a volume."""
        like = self.fine if name == RENDERED and self.fine is not None else self.sections
        return Volume(self.group[name], like.voxel_size_nm, like.offset_nm, f"{self.store}/{name}")


class Aligner:
    """Aligns the sections of a volume (Z, Y, X) with a trained network."""

    def __init__(
        self,
        module: Seamless,
        plan: AlignmentPlan,
        device: torch.device,
        *,
        radius_px: int | None,
        fill: float,
    ) -> None:
        """`radius_px`, `fill`: see `prepare_sections`."""
        self.module, self.plan, self.device = module, plan, device
        self.radius_px, self.fill = radius_px, fill
        self.unit = 2**module.coarsest

    def run(self, stack: AlignedStack) -> None:
        """Aligns all sections that are not finished; DataError for a single section."""
        depth = stack.sections.box.shape[0]
        if depth < 2:
            raise DataError(f"{stack.sections.name} has {depth} section; aligning needs 2 or more")
        done = next((z for z in range(depth) if not stack.has_section(z)), depth)
        if done:
            print(f"[align] resumes at section {done} of {depth}", flush=True)
        for z in progress(range(done, depth), depth - done, "align", "sections"):
            begin = time.monotonic()
            self._section(stack, z)
            stack.note(z, seconds=round(time.monotonic() - begin, 3))

    def _section(self, stack: AlignedStack, z: int) -> None:
        height, width = stack.sections.box.shape[1:]
        for window in windows((height, width), self.plan.tile, self.plan.overlap, self.unit):
            field = self._field(stack, z, window)
            self._check_length(field, stack, z)
            core = (slice(z, z + 1), *window.core)
            stack.group[FIELD][(slice(None), *core)] = field.numpy()[0][:, None]
            image = self._render(stack.sections, z, window.core, field)
            stack.group[ALIGNED][core] = as_uint8(image)[None]
        if stack.fine is not None:
            self._render_fine(stack, z)

    def _field(self, stack: AlignedStack, z: int, window: Window) -> Tensor:
        """The field of a tile's core (1, 2, h, w) px on the CPU; zero for the first section."""
        y, x = window.core
        if z == 0:
            return torch.zeros(1, 2, y.stop - y.start, x.stop - x.start)
        aligned = stack.volume(ALIGNED)
        source = self._prepared(read_section_window(stack.sections, z, window.read))
        targets = [
            self._prepared(read_section_window(aligned, z - back, window.read))
            for back in range(1, self._target_count(z) + 1)
        ]
        fields = [self._pair(source, target) for target in targets]
        field = vote(torch.cat(fields), self.plan.temperature)[None]
        return field[(..., *window.inner)].cpu()

    def _target_count(self, z: int) -> int:
        """How many aligned sections section `z` is compared with: an odd number, to vote."""
        count = min(self.plan.targets, z)
        return count if count % 2 else count - 1

    def _prepared(self, image: Tensor) -> Tensor:
        """The network's input (1, 1, h, w) for a window, on the device."""
        valid = valid_mask(image[0])
        _, filled = prepare_sections(image[0], valid, radius_px=self.radius_px, fill=self.fill)
        return filled[None].to(self.device)

    @torch.no_grad()
    def _pair(self, source: Tensor, target: Tensor) -> Tensor:
        return self.module.field(source, target, flip_average=self.plan.flip_average)

    def _check_length(self, field: Tensor, stack: AlignedStack, z: int) -> None:
        longest = float(length(field).max())
        if not longest <= self.plan.max_displacement:
            raise DataError(
                f"{stack.sections.name}: the field of section {z} reaches {longest:.1f} px, "
                f"beyond `align: max_displacement: {self.plan.max_displacement}`; the sections are "
                "too far apart for this network, or it is not trained. Raise the setting if such "
                "displacements are real"
            )

    def _render(self, volume: Volume, z: int, core: Sequence[slice], field: Tensor) -> Tensor:
        """The pixels `core` of section `z` warped by a field (1, 2, h, w): (1, 1, h, w)."""
        margin = int(np.ceil(float(field.abs().max()))) + 2
        window = [slice(c.start - margin, c.stop + margin) for c in core]
        image = read_section_window(volume, z, window)
        padded = functional.pad(field, [margin] * 4, mode="replicate")
        moved = warp(image, padded)
        return moved[..., margin:-margin, margin:-margin]

    def _render_fine(self, stack: AlignedStack, z: int) -> None:
        """Renders section `z` at `render_mip`, tile by tile, with the upsampled field."""
        assert stack.fine is not None
        factor = pixel_factor(stack.sections.voxel_size_nm, stack.fine.voxel_size_nm)
        height, width = stack.fine.box.shape[1:]
        coarse = stack.sections.box.shape[1:]
        step = -(-self.plan.tile // factor) * factor
        for box in blocks(VoxelBox((0, 0, 0), (1, height, width)), (1, step, step)):
            core = box.slices()[1:]
            low = [max(0, c.start // factor - 1) for c in core]
            high = [min(-(-c.stop // factor) + 1, n) for c, n in zip(core, coarse, strict=True)]
            part = stack.group[FIELD][:, z, low[0] : high[0], low[1] : high[1]]
            finer = upsample(torch.from_numpy(np.asarray(part))[None], factor)
            begin = [c.start - b * factor for c, b in zip(core, low, strict=True)]
            size = [c.stop - c.start for c in core]
            missing = [
                max(0, b + s - n) for b, s, n in zip(begin, size, finer.shape[2:], strict=True)
            ]
            finer = functional.pad(finer, [0, missing[1], 0, missing[0]], mode="replicate")
            field = finer[..., begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]]
            image = self._render(stack.fine, z, core, field)
            stack.group[RENDERED][(slice(z, z + 1), *core)] = as_uint8(image)[None]


def check_fine(sections: Volume, fine: Volume) -> None:
    """DataError unless the volume to render has voxels finer by a whole factor in y and x."""
    factors = whole_voxels(sections.voxel_size_nm, fine.voxel_size_nm)
    if factors is None or factors[0] != 1 or factors[1] != factors[2] or factors[1] < 1:
        raise DataError(
            f"{fine.name} has voxels of {list(fine.voxel_size_nm)} nm, {sections.name} of "
            f"{list(sections.voxel_size_nm)} nm; `render_mip` must be as fine as `mip` or finer"
        )


def megapixels(sections: Volume) -> float:
    """Millions of pixels of all sections but the first."""
    depth, height, width = sections.box.shape
    return (depth - 1) * height * width / 1e6
