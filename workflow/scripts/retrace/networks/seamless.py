"""The alignment network SEAMLeSS: encoders, aligners, and the pyramid that joins them.

Source: Mitchell et al. 2019 (arXiv 1904.02643) and the project's program of July 2018
(training/pyramid.py). Displacement fields follow the convention of `retrace.displacement`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace.config.seamless_shapes import ENCODER_KERNEL, PRE_ENCODER_KERNEL
from retrace.displacement import (
    add_fields,
    compose,
    identity,
    inverse,
    rotate_180,
    rotate_field_180,
    smooth,
    upsample,
    warp,
)
from retrace.errors import DataError
from retrace.networks.cost_volume import local_correlation, window_means
from retrace.networks.pooling import halve

SLOPE = 0.01
"""Negative slope of all leaky ReLUs (pyramid.py)."""
GAIN = math.sqrt(6)
"""Factor on torch's initial weights of every convolution (pyramid.py)."""
DAMPING = 10.0
"""Divisor of the aligners' output with `unit: normalised` (pyramid.py)."""
SHARPNESS = 60.0
"""Initial factor on correlations before the softmax of `Matcher`; it is learned."""
MATCHED_PX = 2
"""Half the window, in pixels of the level, over which `Matcher` averages correlations."""
SPREAD_PX = 12
"""Half the window, in pixels of the level, over which `Matcher` averages matches, twice."""
MAX_LOG_WEIGHT = 6.0
"""Bound on the logarithm of a match's weight."""
COMPOSITIONS = {"functional": compose, "additive": add_fields}
"""How a level's residual joins the field of the coarser levels."""


@dataclass(frozen=True)
class FieldOptions:
    """How the field of two sections is computed; names as in the settings `align`."""

    flip_average: bool = False
    """Whether to average with the field of the sections turned by 180 degrees, turned back. Errors
    that depend on the orientation cancel, so a stack does not drift (SEAMLeSS,
    inference/process.py)."""
    swap_average: bool = False
    """Whether to average with the inverse of the field that aligns the target to the source. Errors
    that are the same both ways cancel."""
    smoothing_px: float = 0
    """Standard deviation, px, of the Gaussian that smooths the field at the end; 0: none."""


@dataclass(frozen=True)
class Pyramid:
    """The shape of the network; names as in the settings of a network of the family seamless."""

    height: int
    """Levels; level 0 is the finest."""
    skip: int
    """Finest levels without a residual."""
    topskips: int
    """Coarsest levels that are not used."""
    composition: str
    """A key of COMPOSITIONS."""
    mean: float
    """Grey value, in [0, 1], that becomes 0 at the input."""
    std: float
    """Divisor of the grey values at the input."""
    first_maps: int
    """Feature maps of level 0's encoder."""
    map_step: int
    """Feature maps that each coarser level has more."""
    aligner_maps: Sequence[int]
    """Feature maps between the convolutions of an aligner."""
    kernel: int
    """Edge of the aligners' kernels, odd."""
    correlation_px: int
    """Largest shift, in pixels of the level, in a `Matcher`'s cost volume; 0: plain aligners."""
    pre_encoder: bool
    """Whether a small network first evens out contrast."""
    unit: str
    """What an aligner's output means: "pixels" of its level, or "normalised" (see `scale`)."""
    train_size: int
    """Side of the training sections in pixels, with unit "normalised"."""
    zero_start: bool
    """Whether aligners start from a zero field instead of a random one."""

    @property
    def coarsest(self) -> int:
        """The level at which the recursion starts."""
        return self.height - 1 - self.topskips

    def scale(self, level: int) -> float:
        """Pixels of `level` per unit of an aligner's output.

        "normalised" outputs, divided by DAMPING, are in units of half of `train_size`, so that they
        mean the same distance for every image size (pyramid.py, `factor`).
        """
        if self.unit == "pixels":
            return 1.0
        return float(self.train_size) / 2 ** (level + 1) / DAMPING


def _convolution(maps_in: int, maps_out: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the shape; torch's initial weights times GAIN."""
    layer = nn.Conv2d(maps_in, maps_out, kernel, padding=kernel // 2)
    with torch.no_grad():
        layer.weight.mul_(GAIN)
    return layer


def _chain(maps: Sequence[int], kernel: int, *, last: bool) -> nn.Sequential:
    """Convolutions through `maps`, each followed by a leaky ReLU, the last one only if `last`."""
    layers: list[nn.Module] = []
    for maps_in, maps_out in zip(maps, maps[1:], strict=False):
        layers += [_convolution(maps_in, maps_out, kernel), nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*(layers if last else layers[:-1]))


def _pre_encoder(first_maps: int) -> nn.Sequential:
    """Evens out contrast in each section; its output is added to the image."""
    half = first_maps // 2
    return _chain([1, half, half, first_maps, half, 1], PRE_ENCODER_KERNEL, last=False)


@dataclass(frozen=True)
class EstimatedField:
    """`field` (N, 2, H, W) at a level, in its pixels, and each level's residual, coarsest first."""

    field: Tensor
    residuals: tuple[Tensor, ...]


class Seamless(nn.Module):
    """Aligns a source section to a target, both (N, 1, H, W) with values in [0, 1].

    Encoders, shared by both images, compute feature maps at each level, halved by max pooling. From
    the coarsest level on, each level's aligner reads the source's maps warped by the current field
    together with the target's maps, and its output is composed with the field.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        """Weights are torch's initial ones times GAIN, from torch's global random state."""
        super().__init__()
        self.pyramid = pyramid
        maps = [pyramid.first_maps + pyramid.map_step * level for level in range(pyramid.height)]
        self.pre_encoder = _pre_encoder(pyramid.first_maps) if pyramid.pre_encoder else None
        self.encoders = nn.ModuleList(
            _chain([before, after, after], ENCODER_KERNEL, last=True)
            for before, after in zip([1, *maps], maps, strict=False)
        )
        self.aligners = nn.ModuleList(self._aligner(count) for count in maps)
        self.scales = [pyramid.scale(level) for level in range(pyramid.height)]
        if pyramid.zero_start:
            self._zero_last_layers()

    def _aligner(self, maps: int) -> nn.Sequential:
        widths, kernel = self.pyramid.aligner_maps, self.pyramid.kernel
        if self.pyramid.correlation_px:
            return Matcher(maps, widths, kernel, self.pyramid.correlation_px)
        return _chain([2 * maps, *widths, 2], kernel, last=False)

    @property
    def coarsest(self) -> int:
        """The level at which the recursion starts."""
        return self.pyramid.coarsest

    def _zero_last_layers(self) -> None:
        for aligner in self.aligners:
            last = aligner[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Feature maps [(N, C, H / 2^level, W / 2^level)], finest first, of `image` (N, 1, H, W).

        DataError if the sides cannot be halved often enough.
        """
        self.check_side(image.shape[-2:])
        image = (image - float(self.pyramid.mean)) / float(self.pyramid.std)
        if self.pre_encoder is not None:
            image = image + self.pre_encoder(image)
        maps = [self.encoders[0](image)]
        for encoder in list(self.encoders)[1 : self.coarsest + 1]:
            maps.append(encoder(halve(maps[-1])))
        return maps

    def check_side(self, shape: Sequence[int]) -> None:
        """DataError for an image of `shape` (H, W) that the pyramid cannot halve often enough."""
        unit = 2**self.coarsest
        if any(side % unit or side == 0 for side in shape):
            raise DataError(
                f"sections of {shape[0]} x {shape[1]} px do not fit a pyramid of "
                f"{self.pyramid.height} levels (topskips {self.pyramid.topskips}): sides must be "
                f"multiples of {unit} px. Crop or pad them, or lower `height` of the network"
            )

    def forward(
        self, source: Tensor, target: Tensor, level: int = 0, begin: Tensor | None = None
    ) -> EstimatedField:
        """The field that aligns `source` to `target`, both (N, 1, H, W), on the grid of `level`.

        `begin`: the field on the coarsest grid to start from, by default the identity.
        """
        return self.align(self.encode(source), self.encode(target), level, begin)

    def align(
        self,
        source: Sequence[Tensor],
        target: Sequence[Tensor],
        level: int = 0,
        begin: Tensor | None = None,
    ) -> EstimatedField:
        """The same as `forward`, from feature maps that `encode` has computed."""
        top = source[self.coarsest]
        start = identity(top.shape[-2:], top.device).expand(len(top), -1, -1, -1)
        field = start if begin is None else begin
        residuals: list[Tensor] = []
        for current in range(self.coarsest, level - 1, -1):
            if current >= self.pyramid.skip:
                residual = self._residual(current, source[current], target[current], field)
                residuals.append(residual)
                field = COMPOSITIONS[self.pyramid.composition](field, residual)
            if current != level:
                field = upsample(field)
        return EstimatedField(field, tuple(residuals))

    def _residual(self, level: int, source: Tensor, target: Tensor, field: Tensor) -> Tensor:
        maps = torch.cat([warp(source, field), target], dim=1)
        residual: Tensor = self.aligners[level](maps) * self.scales[level]
        return residual

    def field(self, source: Tensor, target: Tensor, options: FieldOptions) -> Tensor:
        """The field at level 0, (N, 2, H, W) px, of sections (N, 1, H, W)."""
        field = self._mean_of_ways(source, target, options.swap_average)
        if options.flip_average:
            ways = rotate_180(source), rotate_180(target), options.swap_average
            field = (field + rotate_field_180(self._mean_of_ways(*ways))) / 2
        return smooth(field, options.smoothing_px) if options.smoothing_px else field

    def _mean_of_ways(self, source: Tensor, target: Tensor, swap_average: bool) -> Tensor:
        """The field (N, 2, H, W) px from source to target, averaged over both ways if requested."""
        source_maps, target_maps = self.encode(source), self.encode(target)
        field = self.align(source_maps, target_maps).field
        if not swap_average:
            return field
        return (field + inverse(self.align(target_maps, source_maps).field)) / 2

    def level_parameters(self, level: int) -> list[nn.Parameter]:
        """The parameters of one level's aligner."""
        return list(self.aligners[level].parameters())

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters of the pre-encoder and of all encoders."""
        pre = [] if self.pre_encoder is None else list(self.pre_encoder.parameters())
        return pre + list(self.encoders.parameters())


class Matcher(nn.Sequential):
    """An aligner with a cost volume: it weights shifts of up to `radius` px by how well maps match.

    Its convolutions read the maps and the cost volume and give each shift a score, to which
    `sharpness` x the cost volume averaged over (2 MATCHED_PX + 1)^2 px is added. A match is the
    mean shift under the softmax of these scores (Kendall et al. 2017, GC-Net, section 3.4), and the
    field is a mean of nearby matches with weights from the convolutions. So it matches blocks even
    before training. Not part of SEAMLeSS.
    """

    def __init__(self, maps: int, widths: Sequence[int], kernel: int, radius: int) -> None:
        """`maps`: feature maps of each image; `widths`: those between the convolutions."""
        shifts = (2 * radius + 1) ** 2
        chain = _chain([2 * maps + shifts, *widths, shifts + 1], kernel, last=False)
        super().__init__(*chain)
        self.radius = radius
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))

    def forward(self, maps: Tensor) -> Tensor:
        """The field (N, 2, H, W) px from the maps of source and target, (N, 2 C, H, W)."""
        source, target = maps.chunk(2, dim=1)
        costs = local_correlation(source, target, self.radius)
        scores = super().forward(torch.cat([maps, costs], dim=1))
        around = window_means(costs, MATCHED_PX)
        probabilities = torch.softmax(torch.addcmul(scores[:, 1:], around, self.sharpness), dim=1)
        steps = torch.arange(-self.radius, self.radius + 1, dtype=maps.dtype, device=maps.device)
        shifts = torch.cartesian_prod(steps, steps)  # y, x in the order of the cost volume
        matches = torch.einsum("nshw,sc->nchw", probabilities, shifts)
        return _averaged(matches, scores[:, :1].clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT).exp())


def _averaged(field: Tensor, weights: Tensor) -> Tensor:
    """`field` (N, 2, H, W) averaged with `weights` (N, 1, H, W) over a triangular window.

    Two box filters of half width SPREAD_PX.
    """
    both = torch.cat([field * weights, weights], dim=1)
    for _ in range(2):
        both = window_means(both, SPREAD_PX)
    return both[:, :2] / both[:, 2:]


def build_seamless(
    pyramid: Pyramid, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Seamless:
    """The network with initial weights that depend on `seed` alone.

    On device "meta" it has shapes without memory.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta" if str(device) == "meta" else "cpu"):
            module = Seamless(pyramid)
    return module if str(device) == "meta" else module.to(device)
