"""The valid-convolution 3-D U-Net of the LSD paper (Sheridan et al. 2023).

Source: funkey/mala, `networks/unet.py`. A conv pass is two valid 3x3x3 convolutions with bias and
ReLU. Max pooling goes down. Transposed convolutions with kernel = stride = factor, bias and ReLU go
up and have as many output channels as the upper level. The left feature map is cropped centrally
and concatenated as [left, up]. Upsampled maps are not cropped to the stride, so outputs of shifted
inputs are exactly equal only for shifts by multiples of the total stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import floordiv, mul
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.config.unet_shapes import CONVS_PER_PASS, KERNEL, PASS_LOSS
from retrace.cropping import centre_crop
from retrace.errors import DataError
from retrace.networks.seeded_init import with_seeded_weights

Shape = tuple[int, int, int]


class ConvPass(nn.ModuleList):
    """Two valid 3x3x3 convolutions, each with bias and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv3d(channels_out if index else channels_in, channels_out, KERNEL)
            for index in range(CONVS_PER_PASS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, O, Z - 4, Y - 4, X - 4) from (N, I, Z, Y, X)."""
        for conv in self:
            x = functional.relu_(conv(x))  # in place: the convolution's backward needs no output
        return x


class UNet(nn.Module):
    """U-Net from (N, C, Z, Y, X) float to {head: (N, channels, Z', Y', X')} in [0, 1].

    `downsample`: one (z, y, x) factor per level below the top. Level l has `fmaps * fmap_factor**l`
    feature maps, the two top-right convolutions `max(fmaps_out, fmaps)`. `heads`: the channels of
    each output, a 1x1x1 convolution with a sigmoid.
    """

    dropout: float = 0.0
    """Fraction of the bottom's feature maps that are 0 in a pass while the module trains."""

    def __init__(
        self,
        input_channels: int,
        fmaps: int,
        fmap_factor: int,
        downsample: Sequence[Sequence[int]],
        heads: Mapping[str, int],
        fmaps_out: int | None = None,
    ) -> None:
        super().__init__()
        self.downsample: tuple[Shape, ...] = tuple(_triple(factor) for factor in downsample)
        depth = len(self.downsample)
        width = [fmaps * fmap_factor**level for level in range(depth + 1)]
        top = max(fmaps_out or fmaps, fmaps) if depth else fmaps
        self.left = nn.ModuleList(map(ConvPass, [input_channels, *width[:-1]], width))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(width[level + 1], width[level], factor, factor)
            for level, factor in enumerate(self.downsample)
        )
        self.right = nn.ModuleList(
            ConvPass(2 * width[level], width[level] if level else top) for level in range(depth)
        )
        self.heads = nn.ModuleDict(
            {name: nn.Conv3d(top, channels, 1) for name, channels in heads.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """{head: (N, channels, Z', Y', X')} with sigmoid; DataError below the field of view."""
        is_followed = torch.compiler.is_compiling() or torch.jit.is_tracing()
        crops = [] if is_followed else self._skip_shapes(x.shape[-3:])
        cut_first = not is_followed and torch.is_grad_enabled()
        skips: list[Tensor] = []
        for level, factor in enumerate(self.downsample):
            skip = self.left[level](x)
            if cut_first:
                x, skip = _PoolAndCrop.apply(skip, factor, crops[level])
            else:
                x = functional.max_pool3d(skip, factor, factor)
            skips.append(skip)
        x = self.left[-1](x)
        if self.dropout:
            x = functional.dropout3d(x, self.dropout, self.training)
        for level in reversed(range(len(self.downsample))):
            x = functional.relu_(self.up[level](x))
            skip = skips.pop()
            x = torch.cat((skip if cut_first else centre_crop(skip, x.shape[-3:]), x), dim=1)
            x = self.right[level](x)
        return {name: torch.sigmoid(_at_least_single(head(x))) for name, head in self.heads.items()}

    @property
    def stride(self) -> Shape:
        """Total stride, voxels (z, y, x): shifting the input by it shifts the output by it."""
        return _triple(math.prod(f[axis] for f in self.downsample) for axis in range(3))

    @property
    def context(self) -> Shape:
        """Voxels (z, y, x) that a valid input loses, both sides together."""
        return _triple(self._input_axis(1, axis) - self._output_axis(1, axis) for axis in range(3))

    def valid_shape(self, min_output: Sequence[int] = (1, 1, 1)) -> Shape:
        """Smallest input shape (z, y, x) without pooling remainder whose output has `min_output`.

        The output is smaller by `context` and may exceed `min_output` by up to a stride.
        """
        return _triple(
            self._input_axis(self._bottom_size(size, axis), axis)
            for axis, size in enumerate(min_output)
        )

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Output shape (z, y, x) for an input shape; a pooling remainder is dropped, as in mala.

        DataError when the input is smaller than the field of view.
        """
        return self._trace(input_shape)[-1][1]

    def flop(self, input_shape: Sequence[int]) -> int:
        """Floating-point operations of one forward pass at batch size 1.

        Two per multiply-add of the convolutions; bias, ReLU, pooling and sigmoid are not counted.
        """
        return sum(_layer_flop(layer, shape) for layer, shape in self._trace(input_shape))

    def layer_values(self, input_shape: Sequence[int]) -> int:
        """Values that the largest convolution reads and writes, at batch size 1."""
        return max(_layer_values(layer, shape) for layer, shape in self._trace(input_shape))

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot-uniform weights and zero biases: TensorFlow 1's default, used for the paper."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)

    def _skip_shapes(self, input_shape: Sequence[int]) -> list[Shape]:
        """Shape (z, y, x) that each level's map is cropped to, the top level first."""
        trace = self._trace(input_shape)
        return [shape for layer, shape in trace if isinstance(layer, nn.ConvTranspose3d)][::-1]

    def _trace(self, input_shape: Sequence[int]) -> list[tuple[nn.Module, Shape]]:
        """Every convolution in forward order with its output shape (z, y, x)."""
        shape = _triple(input_shape)
        trace: list[tuple[nn.Module, Shape]] = []
        for level, convs in enumerate(self.left):
            if level:
                shape = _triple(map(floordiv, shape, self.downsample[level - 1]))
            shape = _trace_pass(convs, shape, trace)
        for level in reversed(range(len(self.downsample))):
            shape = _triple(map(mul, shape, self.downsample[level]))
            trace.append((self.up[level], shape))
            shape = _trace_pass(self.right[level], shape, trace)
        if min(min(output) for _, output in trace) < 1:
            raise DataError(
                f"volume smaller than the field of view: input {_text(input_shape)} voxels zyx,"
                f" this network needs at least {_text(self.valid_shape())}; take a larger volume or"
                " box, or a network with fewer or smaller downsample factors"
            )
        trace.extend((head, shape) for head in self.heads.values())
        return trace

    def _bottom_size(self, min_output: int, axis: int) -> int:
        """Smallest output of the bottom conv pass that yields `min_output` voxels along `axis`."""
        stride = self.stride[axis]
        lost = -self._output_axis(0, axis)
        return max(1, -(-(max(min_output, 1) + lost) // stride))

    def _input_axis(self, bottom: int, axis: int) -> int:
        """Input voxels along `axis` for `bottom` voxels at the output of the bottom pass."""
        size = bottom + PASS_LOSS
        for factor in reversed(self.downsample):
            size = size * factor[axis] + PASS_LOSS
        return size

    def _output_axis(self, bottom: int, axis: int) -> int:
        """Output voxels along `axis` for `bottom` voxels at the output of the bottom pass."""
        size = bottom
        for factor in reversed(self.downsample):
            size = size * factor[axis] - PASS_LOSS
        return size


def build_unet(
    *,
    input_channels: int,
    fmaps: int,
    fmap_factor: int,
    downsample: Sequence[Sequence[int]],
    heads: Mapping[str, int],
    fmaps_out: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> UNet:
    """A `UNet` with Glorot-uniform weights drawn from `seed`, the same on every device.

    On device "meta" it has shapes without memory.
    """
    with torch.device("meta"):
        module = UNet(input_channels, fmaps, fmap_factor, downsample, heads, fmaps_out)
    return with_seeded_weights(module, seed, device)


class _PoolAndCrop(torch.autograd.Function):
    """Max pooling of `x` by `factor`, and its central `shape`, with one gradient for both.

    torch's own gradient of the crop pads with zeros, one copy per axis, and adds all voxels of the
    map. Here it is added to that of the pooling in place. The sums are the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Shape, shape: Shape) -> tuple[Tensor, Tensor]:
        """Both maps (N, C, z, y, x) of `x` (N, C, Z, Y, X)."""
        pooled, index = functional.max_pool3d(x, factor, factor, return_indices=True)
        ctx.save_for_backward(x, index)
        ctx.factor, ctx.shape = list(factor), shape
        return pooled, centre_crop(x, shape)

    @staticmethod
    def backward(ctx: Any, of_pooled: Tensor, of_crop: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of `x`."""
        x, index = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.max_pool3d_with_indices_backward(
            of_pooled, x, ctx.factor, ctx.factor, [0, 0, 0], [1, 1, 1], False, index
        )
        centre_crop(gradient, ctx.shape).add_(of_crop)
        return gradient, None, None


def _at_least_single(x: Tensor) -> Tensor:
    """Logits in at least float32, so that the sigmoid resolves the 256 levels of uint8."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _trace_pass(convs: nn.Module, shape: Shape, trace: list[tuple[nn.Module, Shape]]) -> Shape:
    """Appends the convolutions of a pass to `trace`; returns its output shape (z, y, x)."""
    for conv in convs.children():
        shape = _triple(size - (KERNEL - 1) for size in shape)
        trace.append((conv, shape))
    return shape


def _layer_flop(layer: nn.Module, output_shape: Shape) -> int:
    """2 * inputs * outputs * taps per voxel; a transposed one (kernel = stride) has one tap."""
    assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
    taps = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv3d) else 1
    return 2 * layer.in_channels * layer.out_channels * taps * math.prod(output_shape)


def _layer_values(layer: nn.Module, output_shape: Shape) -> int:
    """Values of the input and output of a layer."""
    assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
    if isinstance(layer, nn.ConvTranspose3d):
        read = _triple(map(floordiv, output_shape, layer.kernel_size))
    else:
        read = _triple(n + k - 1 for n, k in zip(output_shape, layer.kernel_size, strict=True))
    return layer.in_channels * math.prod(read) + layer.out_channels * math.prod(output_shape)


def _triple(values: Iterable[int]) -> Shape:
    z, y, x = (int(value) for value in values)
    return z, y, x


def _text(shape: Sequence[int]) -> str:
    return ", ".join(str(int(size)) for size in shape)
