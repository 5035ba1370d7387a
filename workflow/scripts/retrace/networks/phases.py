"""Feature maps taken apart by phase, so that dilated filters become dense ones.

With dilation d, voxels whose distance is no multiple of d never meet in a filter. Laid out as d
maps of every d-th voxel, along the batch axis, a dilated filter is a plain one: the same sums, for
which libraries have fast code. Maps are filled up with zeros to equal sizes; valid filters look
ahead only, so what the zeros touch lies behind the true end and is cut off in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from retrace.znn.graph import ONE, Shape


def take_apart(x: Tensor, step: Shape, before: Shape = ONE) -> Tensor:
    """(B, C, Z, Y, X) to (B sz sy sx, C, ceil(Z / sz), ...), phases slower than the batch.

    `before`: the phases that `x` is apart by already; the result is as if taken apart at once by
    the product of both. Channels stay last in memory where they are.
    """
    if math.prod(step) == 1:
        return x
    if torch.is_grad_enabled() and x.requires_grad:
        found: Tensor = _TakeApart.apply(x, step, before)
        return found
    return _taken_apart(x, step, before)


def channels_are_last(x: Tensor) -> bool:
    """Whether the channels of a voxel lie beside each other in memory."""
    return x.shape[1] > 1 and x.stride(1) == 1


def _empty(like: Tensor, lead: Sequence[int], channels: int, edges: Sequence[int]) -> Tensor:
    """Uninitialised (*lead, C, Z, Y, X) with channels where they are in `like`."""
    if channels_are_last(like):
        return like.new_empty((*lead, *edges, channels)).movedim(-1, len(lead))
    return like.new_empty((*lead, channels, *edges))


def _phases(step: Shape) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Of each phase the voxels that it is made of, and its place in what is taken apart."""
    for phase in product(*map(range, step)):
        voxels = tuple(slice(first, None, s) for first, s in zip(phase, step, strict=True))
        place = tuple(part for first in phase for part in (first, slice(None)))
        yield (..., *voxels), place


def _taken_apart(x: Tensor, step: Shape, before: Shape) -> Tensor:
    count = x.shape[0] // math.prod(before)
    edges = [-(-size // s) for size, s in zip(x.shape[2:], step, strict=True)]
    lead = [part for pair in zip(step, before, strict=True) for part in pair]
    found = _empty(x, (*lead, count), x.shape[1], edges)
    parts = x.unflatten(0, (*before, count))
    for voxels, place in _phases(step):
        part, room = parts[voxels], found[place]
        for axis in (-3, -2, -1):
            size = part.shape[axis]
            room.narrow(axis, size, room.shape[axis] - size).zero_()
            room = room.narrow(axis, 0, size)
        room.copy_(part)
    return found.flatten(0, 6)


class _TakeApart(torch.autograd.Function):
    """Each voxel goes to one phase, and its gradient comes back from there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Shape, before: Shape) -> Tensor:
        ctx.step, ctx.before, ctx.shape = step, before, x.shape
        return _taken_apart(x, step, before)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        batch, channels, *shape = ctx.shape
        count = batch // math.prod(ctx.before)
        lead = [part for pair in zip(ctx.step, ctx.before, strict=True) for part in pair]
        found = _empty(gradient, (*ctx.before, count), channels, shape)
        whole = gradient.unflatten(0, (*lead, count))
        for voxels, place in _phases(ctx.step):
            part, came = found[voxels], whole[place]
            for axis in (-3, -2, -1):
                came = came.narrow(axis, 0, part.shape[axis])
            part.copy_(came)
        return found.flatten(0, 3), None, None


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
