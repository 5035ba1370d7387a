"""Removes the slow drift of a stack whose sections were aligned one after the other.

Each section follows the one before it, so errors add up: neurites that run obliquely pull all of
them sideways, and a section that was aligned badly shifts all that follow. The sections as imaged
do not drift: their positions scatter around the true ones. So the trend of the fields along z is
drift. It is estimated on a coarse grid with robust local regression and removed, relative to the
first section. Only tiles, and the coarse fields of a few sections, are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.aligned_stack import FIELD, AlignedStack
from retrace.alignment.section_tiles import render_fine, write_tile
from retrace.displacement import compose, smooth
from retrace.geometry import VoxelBox, blocks
from retrace.progress import progress

CELL_PX = 32
"""Side of the squares in which fields are averaged for the trend, pixels."""
READ_PX = 2048
"""Side of the tiles that fields are averaged from; a multiple of CELL_PX."""
SMOOTH_CELLS = 1.0
"""Standard deviation, cells, of the smoothing of the averaged fields."""
SLOPE_PENALTY = 16.0
"""Weight of the squared slope: the slope is that of the fields only if there are enough sections.

It equals (2 / 0.5)^2: a section's position scatters by 2 px where a stack drifts by 0.5 px per
section. Without it, the trend of two sections would be the alignment itself.
"""
ROBUST_ROUNDS = 2
OUTLIER = 6.0
"""Residuals of so many times their median have no weight (Cleveland 1979, LOWESS)."""
STEEP_PX = 2.0
"""Drift per section, px, above which errors of the alignment do not explain the trend."""
LEAST_RESIDUAL_PX = 0.1
LEAST_WEIGHT = 1e-3


def trend(fields: Tensor, sections: Tensor, reach: int) -> Tensor:
    """The trend (2, h, w) px at section 0 of coarse fields (n, 2, h, w) px of `sections` (n,).

    Local linear regression at each cell: tricube weights that vanish beyond `reach` sections, and
    bisquare weights of the residuals (Cleveland 1979). `sections` counts from the one in question.
    """
    distance = sections.to(fields.dtype)[:, None, None, None]
    near = (1 - (distance.abs() / (reach + 1)) ** 3).clamp(min=0) ** 3
    weight = near.expand(-1, 1, *fields.shape[-2:])
    level, slope = _line(fields, distance, weight)
    for _ in range(ROBUST_ROUNDS):
        residual = torch.linalg.vector_norm(fields - level - slope * distance, dim=1, keepdim=True)
        middle = residual.median(0).values.clamp(min=LEAST_RESIDUAL_PX)
        robust = (1 - (residual / (OUTLIER * middle)) ** 2).clamp(min=0) ** 2
        level, slope = _line(fields, distance, weight * robust.clamp(min=LEAST_WEIGHT))
    return level


def _line(values: Tensor, distance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Level and slope (2, h, w) of the weighted fit to `values` (n, 2, h, w) over `distance`."""
    total, first = weight.sum(0), (weight * distance).sum(0)
    second = (weight * distance**2).sum(0) + SLOPE_PENALTY
    mean, moment = (weight * values).sum(0), (weight * distance * values).sum(0)
    determinant = total * second - first**2
    level = (second * mean - first * moment) / determinant
    return level, (total * moment - first * mean) / determinant


def steep_lines(steps_px: Sequence[float]) -> list[str]:
    """What to check if the trend changes by more than STEEP_PX from one section to the next.

    A block that was mounted again, or a new imaging session, shifts all sections after it. The
    correction takes such a shift for drift and spreads it over several sections.
    """
    steep = [z for z, step in enumerate(steps_px) if step > STEEP_PX]
    if not steep:
        return []
    return [
        f"the drift that was removed changes by up to {max(steps_px):.1f} px per section around"
        f" sections {steep[0]} to {steep[-1]}, more than errors of an alignment add up to"
        f" ({STEEP_PX:g} px). If the raw sections are shifted from there on (a block mounted again,"
        " another imaging session), this correction tears neighbours apart: set align: drift_reach"
        " to 0 in the network's file, and run the same command again"
    ]


class DriftCorrector:
    """Copies an aligned stack without its drift: fields (2, Z, Y, X) and their images."""

    def __init__(self, chained: AlignedStack, reach: int, tile: int) -> None:
        """`chained`: the stack with drift. `reach`: sections on each side that the trend is of."""
        self.chained, self.reach, self.tile = chained, reach, tile
        self.depth = chained.sections.box.shape[0]
        self._coarse = lru_cache(maxsize=2 * reach + 2)(self._averaged)

    def run(self, stack: AlignedStack) -> None:
        """Writes all sections of `stack` that are not finished."""
        done = next((z for z in range(self.depth) if not stack.has_section(z)), self.depth)
        first = self._trend(0) if done < self.depth else None
        for z in progress(range(done, self.depth), self.depth - done, "drift", "sections"):
            begin = time.monotonic()
            assert first is not None
            level = self._trend(z)
            self._section(stack, z, first - level)
            step = float((level - self._trend(max(0, z - 1))).abs().max())
            seconds = time.monotonic() - begin
            stack.note(z, seconds=round(seconds, 3), drift_step_px=round(step, 3))
        for line in steep_lines([stack.facts(z)["drift_step_px"] for z in range(self.depth)]):
            print(f"[drift] warning: {line}", flush=True)

    def _trend(self, z: int) -> Tensor:
        """The trend (2, h, w) px of the fields around section `z`."""
        around = range(max(0, z - self.reach), min(self.depth, z + self.reach + 1))
        fields = torch.stack([self._coarse(other) for other in around])
        return trend(fields, torch.tensor(around) - z, self.reach)

    def _averaged(self, z: int) -> Tensor:
        """The field of section `z`, averaged over cells and smoothed: (2, h, w) px."""
        height, width = self.chained.sections.box.shape[1:]
        cells = torch.zeros(1, 2, -(-height // CELL_PX), -(-width // CELL_PX))
        for box in blocks(VoxelBox((z, 0, 0), (1, height, width)), (1, READ_PX, READ_PX)):
            y, x = box.slices()[1:]
            field = self._read(z, (y, x))
            pads = [0, -field.shape[3] % CELL_PX, 0, -field.shape[2] % CELL_PX]
            mean = functional.avg_pool2d(functional.pad(field, pads, mode="replicate"), CELL_PX)
            top, left = y.start // CELL_PX, x.start // CELL_PX
            cells[..., top : top + mean.shape[2], left : left + mean.shape[3]] = mean
        return smooth(cells, SMOOTH_CELLS)[0]

    def _read(self, z: int, window: Sequence[slice]) -> Tensor:
        """A window (y, x) of the field of section `z`, (1, 2, h, w) px."""
        part = self.chained.group[FIELD][(slice(None), z, *window)]
        return torch.from_numpy(np.asarray(part))[None]

    def _section(self, stack: AlignedStack, z: int, correction: Tensor) -> None:
        """Section `z` with `correction` (2, h, w) px, on the coarse grid, after its field."""
        height, width = stack.sections.box.shape[1:]
        for box in blocks(VoxelBox((0, 0, 0), (1, height, width)), (1, self.tile, self.tile)):
            y, x = box.slices()[1:]
            fine = fine_values(correction, (y, x))
            write_tile(stack, z, (y, x), self._composed(z, (y, x), fine))
        if stack.fine is not None:
            render_fine(stack, z, self.tile)

    def _composed(self, z: int, core: Sequence[slice], correction: Tensor) -> Tensor:
        """The field of a tile followed by `correction`, both (1, 2, h, w) px."""
        margin = int(np.ceil(float(correction.abs().max()))) + 1
        shape = self.chained.sections.box.shape[1:]
        low = [max(0, c.start - margin) for c in core]
        high = [min(n, c.stop + margin) for c, n in zip(core, shape, strict=True)]
        field = self._read(z, [slice(b, e) for b, e in zip(low, high, strict=True)])
        before = [c.start - b for c, b in zip(core, low, strict=True)]
        after = [e - c.stop for c, e in zip(core, high, strict=True)]
        pads = [before[1], after[1], before[0], after[0]]
        whole = compose(field, functional.pad(correction, pads, mode="replicate"))
        height, width = (c.stop - c.start for c in core)
        y, x = before
        return whole[..., y : y + height, x : x + width]


def fine_values(cells: Tensor, window: Sequence[slice]) -> Tensor:
    """Values (1, 2, h, w) at the pixels of a window (y, x), interpolated between cells (2, H, W).

    A pixel's values do not depend on the window.
    """
    places = [
        (2 * torch.arange(s.start, s.stop) + 1) / (CELL_PX * n) - 1
        for s, n in zip(window, cells.shape[1:], strict=True)
    ]
    y, x = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([x, y], -1)[None].to(cells.dtype)
    return functional.grid_sample(cells[None], grid, "bilinear", "border", align_corners=False)
