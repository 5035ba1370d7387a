"""Local shape descriptors of a label volume (Sheridan et al. 2023, Methods).

Ten channels per voxel, statistics of the voxel's object under a Gaussian window around the voxel:
0-2 mean offset (z, y, x), 3-5 variance (zz, yy, xx), 6-8 Pearson coefficient (zy, zx, yx), 9 size.
Values equal those of `lsd.train.LsdExtractor` (mode "gaussian"); the algorithm differs:

* Work is split into items, one per label and block of the coarse grid, each with its own tight box.
  A thin neurite costs the blocks it fills and not its bounding box, and memory is bounded.
* The window is separable. Along each axis the moments 0, 1, 2 of the relative position are one
  product with a banded matrix, so three products give the ten sums. Positions are relative to the
  voxel, because covariances of absolute positions cancel badly in single precision.

Shapes: P pairs of a coarse voxel and a label that needs a descriptor there, I items, S slots (one
per coarse voxel of an item's box; slot 0 is the background), G items in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from retrace.errors import DataError
from retrace.geometry import NmTriple, Triple, VoxelBox, checked_voxel_size, triple
from retrace.targets.window_statistics import descriptors_of_sums

TRUNCATE = 3.0
"""Half width of the Gaussian window in standard deviations (lsd.train.LsdExtractor)."""
BLOCK = 32
"""Block edge, coarse voxels: larger blocks multiply more zeros, smaller ones more context."""
ITEMS_AT_ONCE = {"cpu": 1}
"""Items per batch by device type."""
OTHER_ITEMS_AT_ONCE = 64
"""Items per batch on other devices, which need more work at a time."""
SUMS = ("xx", "x", "1", "xy", "y", "yy", "zx", "z", "zy", "zz")
"""Order of the ten sums that the products give."""


def lsd_context(voxel_size_nm: Sequence[float], sigma_nm: float, downsample: int = 2) -> Triple:
    """Voxels (z, y, x) on each side of a box that the descriptors inside it depend on."""
    radius = (_radius(sigma_nm / (size * downsample)) for size in voxel_size_nm)
    return triple([r * downsample for r in radius])


@torch.no_grad()
def compute_lsds(
    labels: Tensor,
    voxel_size_nm: Sequence[float],
    sigma_nm: float,
    downsample: int = 2,
    roi: VoxelBox | None = None,
) -> Tensor:
    """Descriptors (10, Z, Y, X) float32 in [0, 1] of `labels` (Z, Y, X) int, on the labels' device.

    `sigma_nm`: standard deviation of the Gaussian window. Statistics are computed on every
    `downsample`-th voxel and repeated in between; label 0 has zeros. `roi` (voxels, relative to
    `labels`) crops the result and uses the labels around it as context. DataError if the box is
    not inside `labels` or not divisible by `downsample`. Source: Sheridan et al. 2023, Methods.
    """
    _check_labels(labels, sigma_nm)
    box = roi or VoxelBox((0, 0, 0), triple(labels.shape))
    _check_box(labels, box, downsample)
    coarse, inside, count = _compact(
        labels[(slice(None, None, downsample),) * 3], labels[box.slices()]
    )
    pairs = _Pairs.of(inside, downsample)
    grid = _Grid(
        coarse,
        label_count=count,
        origin=triple([offset // downsample for offset in box.offset]),
        voxel_size_nm=checked_voxel_size([size * downsample for size in voxel_size_nm]),
        sigma_nm=sigma_nm,
    )
    if not len(pairs.label):
        return torch.zeros(10, *box.shape, device=labels.device)
    items, item_of_pair = _Items.of(pairs, grid)
    sums = _sums(items, grid)
    descriptors = descriptors_of_sums(sums, sigma_nm)
    _set_offsets_without_samples(descriptors, sums[SUMS.index("1")], items, grid)
    descriptors[:, 0] = 0
    slots = pairs.to_voxels(items.slots(item_of_pair, pairs.position))
    return descriptors.index_select(1, slots.flatten()).view(10, *box.shape)


def _check_labels(labels: Tensor, sigma_nm: float) -> None:
    if not isinstance(labels, Tensor):
        raise DataError(
            f"labels must be a tensor, not {type(labels).__name__}; give "
            "torch.from_numpy(labels.astype('int64'))"
        )
    if labels.ndim != 3 or labels.is_floating_point():
        raise DataError(
            "labels must be a (z, y, x) volume of integers,"
            f" not {tuple(labels.shape)} {labels.dtype}"
        )
    if not sigma_nm > 0:
        raise DataError(f"sigma_nm: {sigma_nm} is not allowed; give a number above 0")


def _check_box(labels: Tensor, box: VoxelBox, downsample: int) -> None:
    if box.is_empty or not VoxelBox((0, 0, 0), triple(labels.shape)).contains(box):
        raise DataError(f"{box} is empty or not inside labels of shape {tuple(labels.shape)}")
    if any(value % downsample for value in (*box.offset, *box.shape)):
        raise DataError(
            f"{box} is not divisible by the downsampling factor {downsample} of the descriptors;"
            " choose offset and shape as multiples of it"
        )


def _radius(sigma_voxels: float) -> int:
    """Half width of the window, rounded as in scipy's `gaussian_filter`."""
    return int(TRUNCATE * sigma_voxels + 0.5)


def _compact(coarse: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    """Two volumes of labels renumbered together 1, 2, ... (int32), 0 stays 0; largest number + 1.

    Runs of equal labels are sorted, not voxels.
    """
    voxels = torch.cat((coarse.flatten(), inside.flatten()))
    runs, run_of_voxel = torch.unique_consecutive(voxels, return_inverse=True)
    ids, id_of_run = torch.unique(runs, return_inverse=True)
    number = torch.arange(1, len(ids) + 1, device=voxels.device, dtype=torch.int32)
    number[ids == 0] = 0
    first, second = number[id_of_run][run_of_voxel].split([coarse.numel(), inside.numel()])
    return first.view(coarse.shape), second.view(inside.shape), len(ids) + 1


def _repeat(coarse: Tensor, factor: int) -> Tensor:
    """Nearest-neighbour upsampling of `coarse` (Z, Y, X) by `factor` along every axis."""
    z, y, x = coarse.shape
    spread = coarse[:, None, :, None, :, None].expand(z, factor, y, factor, x, factor)
    return spread.reshape(z * factor, y * factor, x * factor)


@dataclass(frozen=True)
class _Grid:
    """The coarse grid: its labels, including context, and the box's first voxel `origin` in it."""

    labels: Tensor
    label_count: int
    origin: Triple
    voxel_size_nm: NmTriple
    sigma_nm: float

    @property
    def sigma_voxels(self) -> list[float]:
        return [self.sigma_nm / size for size in self.voxel_size_nm]

    @property
    def radius(self) -> list[int]:
        return [_radius(sigma) for sigma in self.sigma_voxels]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a coarse voxel and a label that occurs among its voxels.

    First one pair per labelled coarse voxel with its own label, then one per voxel whose label
    differs from that of its coarse voxel (`odd`). So most of the work is on the coarse grid.
    """

    label: Tensor  # (P,)
    position: Tensor  # (3, P), coarse voxels from the box's first one
    own: Tensor  # flat indices into the coarse grid of the first pairs
    odd: Tensor  # flat indices into the box of the remaining pairs
    is_even: Tensor  # (Z, Y, X) bool, voxels with the label of their coarse voxel
    downsample: int

    @classmethod
    def of(cls, labels: Tensor, downsample: int) -> _Pairs:
        """All pairs of `labels` (Z, Y, X)."""
        coarse = labels[(slice(None, None, downsample),) * 3]
        is_even = labels == _repeat(coarse, downsample)
        own = coarse.flatten().nonzero().squeeze(1)
        odd = (~is_even & (labels != 0)).flatten().nonzero().squeeze(1)
        position = torch.cat(
            (_unravel(own, coarse.shape), _unravel(odd, labels.shape) // downsample), dim=1
        )
        label = torch.cat((coarse.flatten()[own], labels.flatten()[odd]))
        return cls(label, position, own, odd, is_even, downsample)

    def to_voxels(self, slots: Tensor) -> Tensor:
        """The slot of each voxel (Z, Y, X) from the slot of each pair (P,)."""
        shape = [size // self.downsample for size in self.is_even.shape]
        coarse = slots.new_zeros(math.prod(shape))
        coarse[self.own] = slots[: len(self.own)]
        voxels = _repeat(coarse.view(shape), self.downsample) * self.is_even
        voxels.view(-1)[self.odd] = slots[len(self.own) :]
        return voxels


def _unravel(index: Tensor, shape: Sequence[int]) -> Tensor:
    """Flat indices (P,) as coordinates (3, P)."""
    _, y, x = shape
    return torch.stack((index // (y * x), index // x % y, index % x))


@dataclass(frozen=True)
class _Items:
    """Labels in blocks: tight output boxes, and source boxes with the samples they depend on."""

    label: Tensor  # (I,)
    begin: Tensor  # (3, I), first coarse voxel of the output box, from the box's first one
    shape: Tensor  # (3, I), of the output box
    source_begin: Tensor  # (3, I), coarse voxels of the whole grid
    source_end: Tensor  # (3, I)
    first_slot: Tensor  # (I,)

    @classmethod
    def of(cls, pairs: _Pairs, grid: _Grid) -> tuple[_Items, Tensor]:
        """The items of all pairs, and the item of each pair (P,)."""
        blocks = pairs.position // BLOCK
        counts = [-(-size // BLOCK) for size in grid.labels.shape]
        key = pairs.label.long()
        for axis in range(3):
            key = key * counts[axis] + blocks[axis]
        keys, item = torch.unique(key, return_inverse=True)
        corner = _unravel(keys % math.prod(counts), counts) * BLOCK
        first, last = _extent(item, pairs.position - corner[:, item], len(keys), BLOCK)
        label, begin, shape = keys // math.prod(counts), corner + first, last - first + 1
        source = _source_boxes(label, begin, shape, grid)
        first_slot = 1 + functional.pad(shape.prod(0).cumsum(0), (1, 0))[:-1]
        return cls(label, begin, shape, *source, first_slot), item

    def slots(self, item: Tensor, position: Tensor) -> Tensor:
        """The slot (P,) of coarse voxel `position` (3, P) in the box of `item` (P,)."""
        _, y, x = self.shape
        z_stride = y * x
        begin = self.begin[0] * z_stride + self.begin[1] * x + self.begin[2]
        constant = self.first_slot - begin
        return constant[item] + position[0] * z_stride[item] + position[1] * x[item] + position[2]

    @property
    def slot_count(self) -> int:
        """Slots of all items and of the background."""
        return 1 + int(self.shape.prod(0).sum())


def _extent(group: Tensor, position: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """First and last `position` (3, P) in [0, size) of each group, (3, groups) each.

    (0, -1) for an empty group.
    """
    occupied = torch.zeros(3, groups, size, dtype=torch.uint8, device=group.device)
    for axis in range(3):
        occupied[axis].view(-1)[group * size + position[axis]] = 1
    first = occupied.argmax(-1)
    last = size - 1 - occupied.flip(-1).argmax(-1)
    none = occupied.amax(-1) == 0
    return first.masked_fill(none, 0), last.masked_fill(none, -1)


def _source_boxes(
    label: Tensor, begin: Tensor, shape: Tensor, grid: _Grid
) -> tuple[Tensor, Tensor]:
    """Boxes (begin, end), (3, I) each, of a label's samples within a window's radius of its items.

    Where there is no sample, one empty voxel, so that products are never of size 0.
    """
    sampled = grid.labels.flatten().nonzero().squeeze(1)
    sample_label = grid.labels.flatten()[sampled].long()
    position, size = _unravel(sampled, grid.labels.shape), max(grid.labels.shape)
    first, last = _extent(sample_label, position, grid.label_count, size)
    radius, origin = (_column(values, label) for values in (grid.radius, grid.origin))
    source_begin = torch.maximum(first[:, label], begin + origin - radius)
    source_end = torch.minimum(last[:, label] + 1, begin + origin + shape + radius)
    empty = (source_begin >= source_end).any(0)
    source_begin = torch.where(empty, begin + origin, source_begin)
    return source_begin, torch.where(empty, source_begin + 1, source_end)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """`values` (n,) as a column (n, 1) on the device of `like`."""
    return torch.tensor(values, device=like.device)[:, None]


def _sums(items: _Items, grid: _Grid) -> Tensor:
    """The ten weighted sums (10, S) of each slot, in the order of SUMS; positions in nm."""
    axes = zip(grid.sigma_voxels, grid.radius, grid.voxel_size_nm, strict=True)
    kernels = [_banded_moments(*axis).to(grid.labels.device) for axis in axes]
    result = torch.zeros(10, items.slot_count, device=grid.labels.device)
    # Padding with zeros lets all boxes of a batch have the same shape.
    before, after = grid.radius[::-1], [radius + BLOCK for radius in grid.radius[::-1]]
    padded = functional.pad(
        grid.labels, [n for pair in zip(before, after, strict=True) for n in pair]
    )
    with _full_precision(grid.labels.device.type):
        for batch in _batches(items, grid):
            batch.write(_window_sums(batch.samples(padded), batch.bands(kernels)), result)
    return result


def _banded_moments(sigma_voxels: float, radius: int, voxel_size_nm: float) -> Tensor:
    """Matrices (3, BLOCK + 2 radius, BLOCK) of one axis: moments 2, 1, 0; samples; outputs.

    Entry (m, p, j) is the Gaussian weight of the distance t = p - radius - j, times (t in nm)^m.
    """
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (t / sigma_voxels) ** 2)
    weight /= weight.sum()
    moments = torch.stack([weight * (t * voxel_size_nm) ** power for power in (2, 1, 0)])
    bands = torch.zeros(3, BLOCK + 2 * radius, BLOCK, dtype=torch.float64)
    for j in range(BLOCK):
        bands[:, j : j + 2 * radius + 1, j] = moments
    return bands.float()


@dataclass(frozen=True)
class _Batch:
    """Items computed together, with a common shape of their source and output boxes."""

    label: Tensor  # (G,)
    corner: list[Tensor]  # per axis (G,): first voxel of each source box in the padded labels
    source: list[slice]  # per axis: the common source box as rows of the banded matrices
    shape: list[int]  # the common output box
    shapes: Tensor  # (3, G), each item's own output box
    first_slot: Tensor  # (G,)

    def samples(self, padded: Tensor) -> Tensor:
        """(G, z, y, x) float32: 1 where a sample has the item's label, else 0."""
        sizes = [rows.stop - rows.start for rows in self.source]
        if len(self.label) == 1:
            box = tuple(slice(int(c), int(c) + n) for c, n in zip(self.corner, sizes, strict=True))
            return (padded[box] == self.label).float()[None]
        windows = padded
        for axis, size in enumerate(sizes):
            windows = windows.unfold(axis, size, 1)
        z, y, x = self.corner
        return (windows[z, y, x] == self.label[:, None, None, None]).float()

    def bands(self, kernels: list[Tensor]) -> list[Tensor]:
        """The rows and columns of the banded matrices that this batch needs."""
        return [
            kernel[:, rows, :size]
            for kernel, rows, size in zip(kernels, self.source, self.shape, strict=True)
        ]

    def write(self, sums: Tensor, result: Tensor) -> None:
        """Writes the sums (10, G, z, y, x) to their slots; voxels outside an item go to slot 0."""
        if len(self.label) == 1:
            first = int(self.first_slot)
            result[:, first : first + math.prod(self.shape)] = sums.view(10, -1)
            return
        z, y, x = (
            torch.arange(n, device=sums.device).view([-1 if a == axis else 1 for a in range(3)])
            for axis, n in enumerate(self.shape)
        )
        depth, height, width = self.shapes[:, :, None, None, None]
        slot = self.first_slot[:, None, None, None] + (z * height + y) * width + x
        inside = (z < depth) & (y < height) & (x < width)
        result.index_copy_(1, (slot * inside).flatten(), sums.view(10, -1))


def _batches(items: _Items, grid: _Grid) -> Iterator[_Batch]:
    """Items in batches of similar size."""
    device = grid.labels.device
    at_once = ITEMS_AT_ONCE.get(device.type, OTHER_ITEMS_AT_ONCE)
    start = items.begin + _column(grid.origin, items.begin)  # in the padded labels: radius before
    radius = _column(grid.radius, items.begin)
    rows_begin = items.source_begin - start + radius
    rows_end = items.source_end - start + radius
    order = items.shape.prod(0).argsort() if at_once > 1 else torch.arange(len(items.label))
    for batch in order.split(at_once):
        low, high = rows_begin[:, batch].amin(1), rows_end[:, batch].amax(1)
        corner = start[:, batch] + low[:, None]
        yield _Batch(
            items.label[batch],
            list(corner),
            [slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)],
            items.shape[:, batch].amax(1).tolist(),
            items.shape[:, batch],
            items.first_slot[batch],
        )


def _window_sums(samples: Tensor, bands: list[Tensor]) -> Tensor:
    """Ten sums (10, G, z, y, x), in the order of SUMS, of samples (G, z', y', x').

    One axis after another, keeping the moments of total order up to 2: 3, then 6, then 10.
    """
    along_z, along_y, along_x = bands
    groups, depth = samples.shape[:2]
    _, _, width = along_x.shape
    rows = along_x.permute(1, 0, 2).reshape(along_x.shape[1], 3 * width)
    x210 = samples @ rows  # (G, z', y', [xx, x, 1])
    powers_of_y = [
        along_y[2 - power].T @ x210[..., power * width :]  # (G, z', y, [xx, x, 1][power:])
        for power in range(3)
    ]

    def over_z(power: int, part: Tensor) -> Tensor:
        flat = along_z[2 - power].T @ part.reshape(groups, depth, -1)
        split = flat.view(groups, -1, part.shape[2], part.shape[3] // width, width)
        return split.permute(3, 0, 1, 2, 4)

    y0, y1, y2 = powers_of_y
    parts = [(0, y0), (0, y1), (0, y2), (1, y0[..., width:]), (1, y1[..., width:])]
    parts.append((2, y0[..., 2 * width :]))
    return torch.cat([over_z(power, part) for power, part in parts])


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """Computes matrix products in full float32, whatever precision the caller has set."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)


def _set_offsets_without_samples(
    descriptors: Tensor, count: Tensor, items: _Items, grid: _Grid
) -> None:
    """Sets the mean offset where a label has no sample in the window, as `LsdExtractor` does.

    Its mean position is then 0, the corner of the grid. This artefact of tiny labels that lie
    between the samples is kept, so that all voxels are equal to the original's.
    """
    slot = (count[1:] == 0).nonzero().squeeze(1) + 1
    item = torch.searchsorted(items.first_slot, slot, right=True) - 1
    _, y, x = items.shape[:, item]
    local = slot - items.first_slot[item]
    corner = items.begin[:, item] + _column(grid.origin, item)
    position = corner + torch.stack((local // (y * x), local // x % y, local % x))
    offset_nm = -position * _column(grid.voxel_size_nm, item)
    descriptors[:3, slot] = (offset_nm / grid.sigma_nm * 0.5 + 0.5).clamp(0, 1).float()
