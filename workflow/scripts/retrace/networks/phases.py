"""Split feature maps into phases, so that dilated filters become dense ones.

A filter with dilation d never combines voxels whose distance is no multiple of d. So a map is split
into d maps, each of every d-th voxel (a polyphase decomposition, "space to depth"), which are
stacked along the batch axis: a dilated filter is then a plain one with the same sums, for which
libraries have fast code. Phases are padded with zeros at the end to equal sizes. Valid filters only
look ahead, so the padding reaches only voxels behind the true end, which `merge_phases` cuts off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from retrace.znn.graph import ONE, Shape


def split_phases(x: Tensor, step: Shape, before: Shape = ONE) -> Tensor:
    """(B, C, Z, Y, X) to (B sz sy sx, C, ceil(Z / sz), ceil(Y / sy), ceil(X / sx)).

    `step` (sz, sy, sx): every how many voxels a phase has one; phases vary slower than the batch.
    `before`: the phases that `x` is split into already; the result is as if `x` had been split once
    by the product of both. Channels-last memory format is kept. Differentiable.
    """
    if math.prod(step) == 1:
        return x
    if torch.jit.is_tracing():
        return _rearranged(x, step, before)
    if torch.is_grad_enabled() and x.requires_grad:
        phases: Tensor = _SplitPhases.apply(x, step, before)
        return phases
    return _split(x, step, before)


def phase_voxels(shape: Sequence[int], step: Sequence[int]) -> int:
    """Voxels of all phases of a map of `shape` (z, y, x), with their padding."""
    return math.prod(-(-size // s) * s for size, s in zip(shape, step, strict=True))


def channels_are_last(x: Tensor) -> bool:
    """Whether `x` (N, C, ...) is in channels-last memory format; False for a single channel."""
    return x.shape[1] > 1 and x.stride(1) == 1


def _empty(like: Tensor, batch: int, channels: int, edges: Sequence[int]) -> Tensor:
    """Uninitialised (B, C, Z, Y, X) in the memory format of `like`.

    It is no view: what an autograd function returns may then be changed in place.
    """
    is_last = channels_are_last(like)
    layout = torch.channels_last_3d if is_last else torch.contiguous_format
    return torch.empty(
        (batch, channels, *edges), dtype=like.dtype, device=like.device, memory_format=layout
    )


def _phase_indices(step: Shape) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """For each phase the index of its voxels in a map, and of the phase in the split maps."""
    for phase in product(*map(range, step)):
        voxels = tuple(slice(first, None, s) for first, s in zip(phase, step, strict=True))
        place = tuple(part for first in phase for part in (first, slice(None)))
        yield (..., *voxels), place


def _split(x: Tensor, step: Shape, before: Shape) -> Tensor:
    count = x.shape[0] // math.prod(before)
    edges = [-(-size // s) for size, s in zip(x.shape[2:], step, strict=True)]
    lead = [part for pair in zip(step, before, strict=True) for part in pair]
    result = _empty(x, len(x) * math.prod(step), x.shape[1], edges)
    phases, maps = result.unflatten(0, (*lead, count)), x.unflatten(0, (*before, count))
    for voxels, place in _phase_indices(step):
        source, target = maps[voxels], phases[place]
        for axis in (-3, -2, -1):
            size = source.shape[axis]
            target.narrow(axis, size, target.shape[axis] - size).zero_()
            target = target.narrow(axis, 0, size)
        target.copy_(source)
    return result


def _rearranged(x: Tensor, step: Shape, before: Shape) -> Tensor:
    """`_split` without writing in place, for records of a pass that hold for inputs of any size."""
    batch, channels, depth, height, width = x.shape
    sizes = tuple(zip((depth, height, width), step, strict=True))
    padding = [part for size, s in reversed(sizes) for part in (0, -size % s)]
    edges = [-(-size // s) for size, s in sizes]
    pairs = [part for edge, s in zip(edges, step, strict=True) for part in (edge, s)]
    phases = functional.pad(x, padding).reshape(batch, channels, *pairs)
    phases = phases.permute(3, 5, 7, 0, 1, 2, 4, 6)  # step, batch, channels, edges
    if math.prod(before) > 1:  # the phases of before are the slower part of the batch
        phases = phases.reshape(*step, *before, batch // math.prod(before), -1)
        phases = phases.permute(0, 3, 1, 4, 2, 5, 6, 7)
    return phases.reshape(batch * math.prod(step), channels, *edges)


class _SplitPhases(torch.autograd.Function):
    """`_split` with its gradient: each voxel is in one phase and takes its gradient from there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Shape, before: Shape) -> Tensor:
        ctx.step, ctx.before, ctx.shape = step, before, x.shape
        return _split(x, step, before)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        batch, channels, *shape = ctx.shape
        count = batch // math.prod(ctx.before)
        lead = [part for pair in zip(ctx.step, ctx.before, strict=True) for part in pair]
        result = _empty(gradient, batch, channels, shape)
        merged = result.unflatten(0, (*ctx.before, count))
        phases = gradient.unflatten(0, (*lead, count))
        for voxels, place in _phase_indices(ctx.step):
            target, source = merged[voxels], phases[place]
            for axis in (-3, -2, -1):
                source = source.narrow(axis, 0, target.shape[axis])
            target.copy_(source)
        return result, None, None


def merge_phases(x: Tensor, step: Shape, shape: Sequence[int]) -> Tensor:
    """The inverse of `split_phases`: (B, C, *shape) from phases (B sz sy sx, C, z, y, x).

    `shape` (z, y, x): voxels of the result; what exceeds it is padding and is cut off.
    """
    if math.prod(step) > 1:
        count, channels, *edges = x.shape
        phases = x.reshape(*step, count // math.prod(step), channels, *edges)
        phases = phases.permute(3, 4, 5, 0, 6, 1, 7, 2)
        whole = [edge * s for edge, s in zip(edges, step, strict=True)]
        x = phases.reshape(phases.shape[0], channels, *whole)
    depth, height, width = shape
    return x[..., :depth, :height, :width]
