"""Sections in tiles: which pixels a tile reads, and how it is rendered through a field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.aligned_stack import ALIGNED, FIELD, MASK, RENDERED, AlignedStack
from retrace.displacement import upsample, warp
from retrace.errors import DataError
from retrace.geometry import VoxelBox, blocks, pixel_factor, whole_voxels
from retrace.storage.volumes import Volume
from retrace.targets.ternary import INSIDE, NEAR, ceil_binary


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
    data = _read(volume, z, window)
    values = torch.from_numpy(data.astype(np.float32))
    return (values / 255 if data.dtype == np.uint8 else values)[None, None]


def read_labels(volume: Volume, z: int, window: Sequence[slice]) -> Tensor:
    """Labels of a window (y, x) of section `z`, (1, 1, h, w) uint8; 0 outside."""
    return torch.from_numpy(np.ascontiguousarray(_read(volume, z, window)))[None, None]


def _read(volume: Volume, z: int, window: Sequence[slice]) -> np.ndarray:
    """Voxels (h, w) of a window; `z`, y and x count from the volume's first voxel."""
    y, x = window
    offset = volume.box.offset
    box = VoxelBox(
        (offset[0] + z, offset[1] + y.start, offset[2] + x.start),
        (1, y.stop - y.start, x.stop - x.start),
    )
    return volume.read(box, fill=0)[0]


def as_uint8(image: Tensor) -> np.ndarray:
    """An image (1, 1, H, W) in [0, 1] as rounded grey values (H, W) uint8."""
    return np.asarray((image[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


def render(volume: Volume, z: int, core: Sequence[slice], field: Tensor) -> Tensor:
    """The pixels `core` of section `z` warped by a field (1, 2, h, w): (1, 1, h, w)."""
    return _moved(partial(read_section_window, volume, z), core, field, warp)


def _moved(
    read: Callable[[Sequence[slice]], Tensor],
    core: Sequence[slice],
    field: Tensor,
    warped: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The pixels `core` of what `read` gives for a window, `warped` by a field (1, 2, h, w)."""
    margin = int(np.ceil(float(field.abs().max()))) + 2
    values = read([slice(c.start - margin, c.stop + margin) for c in core])
    padded = functional.pad(field, [margin] * 4, mode="replicate")
    return warped(values, padded)[..., margin:-margin, margin:-margin]


def _warp_labels(labels: Tensor, field: Tensor) -> Tensor:
    """Ternary labels (1, 1, H, W) warped by a field; a pixel gets the largest label it touches."""
    parts = [ceil_binary(warp((labels >= label).float(), field)) for label in (NEAR, INSIDE)]
    return torch.stack(parts).sum(0).to(torch.uint8)


def write_tile(stack: AlignedStack, z: int, core: tuple[slice, slice], field: Tensor) -> None:
    """Writes the field (1, 2, h, w) px of a tile of section `z`, and the section warped by it."""
    place = (slice(z, z + 1), *core)
    stack.group[FIELD][(slice(None), *place)] = field.numpy()[0][:, None]
    stack.group[ALIGNED][place] = as_uint8(render(stack.sections, z, core, field))[None]
    if stack.masks is not None:
        labels = _moved(partial(stack.masks.read, z), core, field, _warp_labels)
        stack.group[MASK][place] = labels[0].numpy()


def render_fine(stack: AlignedStack, z: int, tile: int) -> None:
    """Renders section `z` at `render_mip`, tile by tile, with the upsampled field."""
    assert stack.fine is not None
    factor = pixel_factor(stack.sections.voxel_size_nm, stack.fine.voxel_size_nm)
    height, width = stack.fine.box.shape[1:]
    coarse = stack.sections.box.shape[1:]
    step = -(-tile // factor) * factor
    for box in blocks(VoxelBox((0, 0, 0), (1, height, width)), (1, step, step)):
        core = box.slices()[1:]
        low = [max(0, c.start // factor - 1) for c in core]
        high = [min(-(-c.stop // factor) + 1, n) for c, n in zip(core, coarse, strict=True)]
        part = stack.group[FIELD][:, z, low[0] : high[0], low[1] : high[1]]
        finer = upsample(torch.from_numpy(np.asarray(part))[None], factor)
        begin = [c.start - b * factor for c, b in zip(core, low, strict=True)]
        size = [c.stop - c.start for c in core]
        missing = [max(0, b + s - n) for b, s, n in zip(begin, size, finer.shape[2:], strict=True)]
        finer = functional.pad(finer, [0, missing[1], 0, missing[0]], mode="replicate")
        field = finer[..., begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]]
        image = render(stack.fine, z, core, field)
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
