"""Feature maps taken apart by phase, so that dilated filters become dense ones.

With dilation d, voxels whose distance is no multiple of d never meet in a filter. Laid out as d
maps of every d-th voxel, along the batch axis, a dilated filter is a plain one: the same sums, for
which libraries have fast code. Maps are filled up with zeros to equal sizes; valid filters look
ahead only, so what the zeros touch lies behind the true end and is cut off in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from retrace.znn.graph import ONE, Shape


def take_apart(x: Tensor, step: Shape, before: Shape = ONE) -> Tensor:
    """(B, C, Z, Y, X) to (B sz sy sx, C, ceil(Z / sz), ...), phases slower than the batch.

    `before`: the phases that `x` is apart by already; the result is as if taken apart at once by
    the product of both.
    """
    if math.prod(step) == 1:
        return x
    batch, channels, *shape = x.shape
    pad = [-size % s for size, s in zip(shape, step, strict=True)]
    if any(pad):
        x = functional.pad(x, [part for p in reversed(pad) for part in (0, p)])
    count = batch // math.prod(before)
    edges = [-(-size // s) for size, s in zip(shape, step, strict=True)]
    pairs = [part for edge, s in zip(edges, step, strict=True) for part in (edge, s)]
    parts = x.reshape(*before, count, channels, *pairs)
    parts = parts.permute(6, 0, 8, 1, 10, 2, 3, 4, 5, 7, 9)
    return parts.reshape(batch * math.prod(step), channels, *edges)


def put_together(x: Tensor, step: Shape, shape: Sequence[int]) -> Tensor:
    """The inverse of `take_apart` by `step`, cut to `shape` voxels."""
    if math.prod(step) > 1:
        phases, channels, *edges = x.shape
        parts = x.reshape(*step, phases // math.prod(step), channels, *edges)
        parts = parts.permute(3, 4, 5, 0, 6, 1, 7, 2)
        whole = [edge * s for edge, s in zip(edges, step, strict=True)]
        x = parts.reshape(parts.shape[0], channels, *whole)
    depth, height, width = shape
    return x[..., :depth, :height, :width]
