"""Valid 3-D convolution for ZNN and ELEKTRONN networks: directly, or by Fourier transforms."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MODES = ("direct", "fft")
"""How a convolution can be computed; results agree to rounding."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Valid correlation (N, O, Z', Y', X') of `x` (N, I, Z, Y, X) with `weight` (O, I, z, y, x).

    `bias` (O,) is added. `mode`: one of `MODES`; filters of a single voxel are always direct. Like
    torch's layers this correlates; a true convolution is the same with the weight flipped on all
    three axes.
    """
    if mode == "fft" and math.prod(weight.shape[2:]) > 1:
        return _by_fft(x, weight, bias)
    # A record of a pass has the convolution itself: what reads it chooses how to compute it.
    if not torch.jit.is_tracing() and weight.shape[2] == 1:
        return _by_section(x, weight, bias)
    return functional.conv3d(x, weight, bias)


def _by_section(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Filters that span one section, as 2-D convolutions: faster on CPUs than 3-D ones.

    On a CPU the result is in channels-last memory format, and so is everything computed from it:
    the next convolution needs no reordering, and pooling and `phases` copy whole rows of channels.
    """
    if x.device.type == "cpu" and x.dtype != torch.float64:
        return _channels_last(x, weight, bias)
    count, channels, depth = x.shape[:3]
    if depth == 1:
        return functional.conv2d(x.squeeze(2), weight.squeeze(2), bias).unsqueeze(2)
    flat = x.transpose(1, 2).reshape(count * depth, channels, *x.shape[3:])
    y = functional.conv2d(flat, weight.squeeze(2), bias)
    return y.reshape(count, depth, *y.shape[1:]).transpose(1, 2)


def _channels_last(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same on sections (N Z, C, Y, X) in channels-last format; one channel has no order."""
    count, channels, depth, height, width = x.shape
    last = x.permute(0, 2, 3, 4, 1).reshape(count * depth, height, width, channels)
    filters = weight.squeeze(2)
    if _is_product(x, filters):
        y = _by_product(last, filters, bias)
    else:
        if channels > 1:
            filters = filters.contiguous(memory_format=torch.channels_last)
        y = functional.conv2d(last.permute(0, 3, 1, 2), filters, bias)
        y = y.permute(0, 2, 3, 1).contiguous()
    return y.unflatten(0, (count, depth)).permute(0, 4, 1, 2, 3)


def _is_product(x: Tensor, filters: Tensor) -> bool:
    """Whether training is faster with the convolution written as one matrix product.

    The libraries' gradients of filters of an image with one channel, and of filters of one voxel,
    take as long as those of layers with ten times the arithmetic.
    """
    if not (torch.is_grad_enabled() and filters.requires_grad):
        return False
    is_image = x.shape[1] == 1 and not x.requires_grad
    return is_image or math.prod(filters.shape[2:]) == 1


def _by_product(last: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """(N, Y', X', O) from `last` (N, Y, X, C) and `filters` (O, C, y, x): one row per voxel."""
    windows = last.unfold(1, filters.shape[2], 1).unfold(2, filters.shape[3], 1)
    rows = windows.reshape(-1, filters[0].numel())
    y = functional.linear(rows, filters.reshape(len(filters), -1), bias)
    return y.reshape(*windows.shape[:3], -1)


def _by_fft(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Products of spectra, summed over the input channels before the inverse transform.

    The transforms are as long as `x`: circular wrap-around only affects voxels beyond the valid
    part, which are cut off. Values in bfloat16 are transformed in float32: there is no transform of
    them on a GPU.
    """
    x, weight = (t if t.dtype == torch.float64 else t.float() for t in (x, weight))
    axes = [axis for axis in (-3, -2, -1) if x.shape[axis] > 1]
    lengths = [x.shape[axis] for axis in axes]
    inputs = torch.fft.rfftn(x, lengths, axes)
    filters = torch.fft.rfftn(weight, lengths, axes).conj()
    y = torch.fft.irfftn(_mix_channels(inputs, filters), lengths, axes)
    for axis in (-3, -2, -1):
        y = y.narrow(axis, 0, x.shape[axis] - weight.shape[axis] + 1)
    return y if bias is None else y + bias[:, None, None, None]


def _mix_channels(inputs: Tensor, filters: Tensor) -> Tensor:
    """sum_i inputs[n, i] filters[o, i] at each frequency, as one small matrix product each."""
    count, channels, *shape = inputs.shape
    outputs = filters.shape[0]
    left = inputs.reshape(count, channels, -1).permute(2, 0, 1)
    right = filters.reshape(outputs, channels, -1).permute(2, 1, 0)
    return torch.bmm(left, right).permute(1, 2, 0).reshape(count, outputs, *shape)
