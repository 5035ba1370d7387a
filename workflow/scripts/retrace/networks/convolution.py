"""Dense convolution of ZNN networks: as the library does it, or by Fourier transforms."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MODES = ("direct", "fft")


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Valid correlation of (N, I, Z, Y, X) with `weight` (O, I, z, y, x), plus `bias` (O,).

    A true convolution is one with the weight flipped on all three axes.
    """
    if mode == "fft" and math.prod(weight.shape[2:]) > 1:
        return _spectral(x, weight, bias)
    if weight.shape[2] == 1:
        return _by_section(x, weight, bias)
    return functional.conv3d(x, weight, bias)


def _by_section(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Filters of one section as 2-D convolutions: CPU libraries have faster code for those.

    On a CPU the result has its channels last in memory, and so has what is made of it: convolutions
    then need no other order of their own, and pooling and phases move whole rows of channels.
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
    """Sections (N Z, C, Y, X) whose channels lie last, and back; a single channel has no order."""
    count, channels, depth, height, width = x.shape
    last = x.permute(0, 2, 3, 4, 1).reshape(count * depth, height, width, channels)
    filters = weight.squeeze(2)
    if channels > 1:
        filters = filters.contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(last.permute(0, 3, 1, 2), filters, bias)
    y = y.permute(0, 2, 3, 1).contiguous()
    return y.unflatten(0, (count, depth)).permute(0, 4, 1, 2, 3)


def _spectral(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Products of spectra, summed over the input maps before the transform back.

    The transforms are as long as `x`: what wraps around lies behind the valid part.
    """
    axes = [axis for axis in (-3, -2, -1) if x.shape[axis] > 1]
    lengths = [x.shape[axis] for axis in axes]
    seen = torch.fft.rfftn(x, lengths, axes)
    filters = torch.fft.rfftn(weight, lengths, axes).conj()
    mixed = _mix(seen, filters)
    y = torch.fft.irfftn(mixed, lengths, axes)
    for axis in (-3, -2, -1):
        y = y.narrow(axis, 0, x.shape[axis] - weight.shape[axis] + 1)
    return y if bias is None else y + bias[:, None, None, None]


def _mix(seen: Tensor, filters: Tensor) -> Tensor:
    """sum_i seen[n, i] filters[o, i] per frequency: one small matrix product for each."""
    count, inputs, *shape = seen.shape
    outputs = filters.shape[0]
    left = seen.reshape(count, inputs, -1).permute(2, 0, 1)
    right = filters.reshape(outputs, inputs, -1).permute(2, 1, 0)
    return torch.bmm(left, right).permute(1, 2, 0).reshape(count, outputs, *shape)
