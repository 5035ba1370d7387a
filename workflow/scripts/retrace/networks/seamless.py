"""The alignment network SEAMLeSS: encoders, aligners, and the pyramid that joins them.

After Mitchell et al. 2019 (arXiv 1904.02643) and the program of that project of July 2018
(training/pyramid.py); fields follow retrace.fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.displacement import (
    add_fields,
    compose,
    identity,
    rotate_180,
    rotate_field_180,
    upsample,
    warp,
)
from retrace.errors import DataError

SLOPE = 0.01
"""Of all leaky rectifiers."""
GAIN = math.sqrt(6)
"""What the first weights of every convolution are multiplied by."""
DAMPING = 10.0
"""What the aligners' output is divided by."""
PRE_ENCODER_KERNEL = 7
ENCODER_KERNEL = 3
SHARPNESS = 60.0
"""What correlations are multiplied by before the softmax, at first; then it is learned."""
MATCHED_PX = 2
"""Half the window, pixels of the level, that correlations are averaged over."""
SPREAD_PX = 12
"""Half the window, pixels of the level, that matches are averaged over, twice."""
LARGEST = 6.0
"""Logarithm of the greatest weight of a match."""
COMPOSITIONS = {"functional": compose, "additive": add_fields}


def _convolution(maps_in: int, maps_out: int, kernel: int) -> nn.Conv2d:
    """Keeps the shape; torch's own first weights times GAIN."""
    layer = nn.Conv2d(maps_in, maps_out, kernel, padding=kernel // 2)
    with torch.no_grad():
        layer.weight.mul_(GAIN)
    return layer


def _chain(maps: Sequence[int], kernel: int, *, last: bool) -> nn.Sequential:
    """Convolutions through `maps`, a rectifier after each, after the last one only if `last`."""
    layers: list[nn.Module] = []
    for maps_in, maps_out in zip(maps, maps[1:], strict=False):
        layers += [_convolution(maps_in, maps_out, kernel), nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*(layers if last else layers[:-1]))


@dataclass(frozen=True)
class Alignment:
    """What the pyramid gives: the field (N, 2, H, W) at a level, in its pixels, and each level's
    share of it, coarsest first."""

    field: Tensor
    residuals: tuple[Tensor, ...]


class Seamless(nn.Module):
    """Aligns a source section to a target, both (N, 1, H, W) with values in [0, 1].

    Level 0 is the finest of `height`. Encoders, the same for both images, give maps at each level,
    halved by max pooling; from the coarsest on, the aligner of each level sees the source's maps
    read through the field so far beside the target's, and adds to the field.
    """

    def __init__(self, network: Mapping[str, Any]) -> None:
        """`network`: the settings of config/schemas/seamless_network.schema.yaml."""
        super().__init__()
        self.height: int = network["height"]
        self.skip: int = network["skip"]
        self.topskips: int = network["topskips"]
        self.composition: str = network["composition"]
        self.mean, self.std = float(network["input"]["mean"]), float(network["input"]["std"])
        first, step = network["encoder_maps"]["first"], network["encoder_maps"]["step"]
        maps = [first + step * level for level in range(self.height)]
        kernel, widths = network["kernel"], network["aligner_maps"]
        self.pre_encoder = _pre_encoder(first) if network["pre_encoder"] else None
        self.encoders = nn.ModuleList(
            _chain([before, after, after], ENCODER_KERNEL, last=True)
            for before, after in zip([1, *maps], maps, strict=False)
        )
        self.correlation_px: int = network["correlation_px"]
        self.aligners = nn.ModuleList(
            Matcher(count, widths, kernel, self.correlation_px)
            if self.correlation_px
            else _chain([2 * count, *widths, 2], kernel, last=False)
            for count in maps
        )
        self.scales = [_scale(network, level) for level in range(self.height)]
        if network["zero_start"]:
            self._zero_last_layers()

    @property
    def coarsest(self) -> int:
        """The level that the recursion begins at."""
        return self.height - 1 - self.topskips

    def zero_aligners(self) -> None:
        """Makes every aligner give 0, whatever it sees: the field is the identity."""
        self._zero_last_layers()
        for aligner in self.aligners:
            if isinstance(aligner, Matcher):
                nn.init.zeros_(aligner.sharpness)

    def _zero_last_layers(self) -> None:
        for aligner in self.aligners:
            last = aligner[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(self, image: Tensor) -> list[Tensor]:
        """The maps (N, C, H, W) of an image (N, 1, H, W) at every level, finest first."""
        self.check_side(image.shape[-2:])
        image = (image - self.mean) / self.std
        if self.pre_encoder is not None:
            image = image + self.pre_encoder(image)
        maps = [self.encoders[0](image)]
        for encoder in list(self.encoders)[1 : self.coarsest + 1]:
            maps.append(encoder(functional.max_pool2d(maps[-1], 2)))
        return maps

    def check_side(self, shape: Sequence[int]) -> None:
        """DataError for an image that the pyramid cannot halve often enough."""
        unit = 2**self.coarsest
        if any(side % unit or side == 0 for side in shape):
            raise DataError(
                f"sections of {shape[0]} x {shape[1]} px do not fit a pyramid of {self.height} "
                f"levels (topskips {self.topskips}): sides must be multiples of {unit} px. Crop or "
                "pad them, or lower `height` of the network"
            )

    def forward(
        self, source: Tensor, target: Tensor, level: int = 0, begin: Tensor | None = None
    ) -> Alignment:
        """The field that aligns `source` to `target` at `level`, on its grid.

        `begin`: a field on the coarsest grid to start from; without it, nothing moves there.
        """
        return self.align(self.encode(source), self.encode(target), level, begin)

    def align(
        self,
        source: Sequence[Tensor],
        target: Sequence[Tensor],
        level: int = 0,
        begin: Tensor | None = None,
    ) -> Alignment:
        """The same from maps that are already there."""
        top = source[self.coarsest]
        start = identity(top.shape[-2:], top.device).expand(len(top), -1, -1, -1)
        field = start if begin is None else begin
        residuals: list[Tensor] = []
        for now in range(self.coarsest, level - 1, -1):
            if now >= self.skip:
                residual = self._residual(now, source[now], target[now], field)
                residuals.append(residual)
                field = COMPOSITIONS[self.composition](field, residual)
            if now != level:
                field = upsample(field)
        return Alignment(field, tuple(residuals))

    def _residual(self, level: int, source: Tensor, target: Tensor, field: Tensor) -> Tensor:
        seen = torch.cat([warp(source, field), target], dim=1)
        found: Tensor = self.aligners[level](seen) * self.scales[level]
        return found

    def field(self, source: Tensor, target: Tensor, *, flip_average: bool) -> Tensor:
        """The field at level 0, (N, 2, H, W).

        `flip_average`: the mean with that of the sections turned by 180 degrees, turned back;
        whatever depends on the orientation cancels, and no stack drifts (inference/process.py).
        """
        found = self.align(self.encode(source), self.encode(target)).field
        if not flip_average:
            return found
        turned = self.align(self.encode(rotate_180(source)), self.encode(rotate_180(target))).field
        return (found + rotate_field_180(turned)) / 2

    def level_parameters(self, level: int) -> list[nn.Parameter]:
        """Of one level's aligner."""
        return list(self.aligners[level].parameters())

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Of all encoders and of the pre-encoder."""
        pre = [] if self.pre_encoder is None else list(self.pre_encoder.parameters())
        return pre + list(self.encoders.parameters())


class Matcher(nn.Sequential):
    """An aligner that weighs shifts of up to `radius` px by how well the maps agree there.

    Takes (N, 2 C, H, W) as the others do. Its convolutions see the maps and the cost volume and
    give each shift a score, which is added to `sharpness` x the cost volume averaged over
    (2 MATCHED_PX + 1)^2 px; a match is the mean shift under the softmax of that (Kendall et al.
    2017, GC-Net, section 3.4). The field is the mean of the matches around, with weights that the
    convolutions give. So it matches blocks before it has learned anything.
    """

    def __init__(self, maps: int, widths: Sequence[int], kernel: int, radius: int) -> None:
        shifts = (2 * radius + 1) ** 2
        chain = _chain([2 * maps + shifts, *widths, shifts + 1], kernel, last=False)
        super().__init__(*chain)
        self.radius = radius
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))

    def forward(self, seen: Tensor) -> Tensor:
        """The field (N, 2, H, W) px from maps of the source and of the target."""
        source, target = seen.chunk(2, dim=1)
        costs = local_correlation(source, target, self.radius)
        scores = super().forward(torch.cat([seen, costs], dim=1))
        window = 2 * MATCHED_PX + 1
        around = functional.avg_pool2d(costs, window, 1, MATCHED_PX, count_include_pad=False)
        shares = torch.softmax(scores[:, 1:] + self.sharpness * around, dim=1)
        steps = torch.arange(-self.radius, self.radius + 1, dtype=seen.dtype, device=seen.device)
        shifts = torch.cartesian_prod(steps, steps)  # y, x in the order of the cost volume
        found = torch.einsum("nshw,sc->nchw", shares, shifts)
        return _averaged(found, scores[:, :1].clamp(-LARGEST, LARGEST).exp())


def _averaged(field: Tensor, weights: Tensor) -> Tensor:
    """A field averaged with weights (N, 1, H, W) over a triangle of 2 SPREAD_PX px a side."""
    both = torch.cat([field * weights, weights], dim=1)
    for _ in range(2):
        both = functional.avg_pool2d(both, 2 * SPREAD_PX + 1, 1, SPREAD_PX, count_include_pad=False)
    return both[:, :2] / both[:, 2:]


def local_correlation(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """How alike `target` (N, C, H, W) at r is to `source` at r + d, for all d up to `radius` px.

    (N, (2 radius + 1)^2, H, W), d by rows: the correlation of the C maps of two pixels, in [-1, 1];
    0 where r + d is outside. The cost volume of optical flow networks (Sun et al. 2018, PWC-Net,
    section 3), with maps standardised at each pixel.
    """
    height, width = target.shape[-2:]
    around = functional.pad(_standardised(source), [radius] * 4)
    here = _standardised(target)
    steps = range(2 * radius + 1)
    products = [
        (here * around[..., y : y + height, x : x + width]).sum(1) for y in steps for x in steps
    ]
    return torch.stack(products, dim=1)


def _standardised(maps: Tensor) -> Tensor:
    """Each pixel's maps with mean 0 and length 1."""
    return functional.normalize(maps - maps.mean(1, keepdim=True), dim=1, eps=1e-4)


def _pre_encoder(first: int) -> nn.Sequential:
    """Evens out contrast, slice by slice; its output is added to the image."""
    half = first // 2
    return _chain([1, half, half, first, half, 1], PRE_ENCODER_KERNEL, last=False)


def _scale(network: Mapping[str, Any], level: int) -> float:
    """What an aligner's output is multiplied by to be in pixels of its level.

    `unit: normalised`: its output, divided by DAMPING, is in units of half of `train_size` pixels,
    so that it means the same distance whatever the image's size (pyramid.py, factor).
    """
    if network["unit"] == "pixels":
        return 1.0
    return float(network["train_size"]) / 2 ** (level + 1) / DAMPING


def receptive_radius(network: Mapping[str, Any]) -> int:
    """Pixels of level 0 beyond which nothing changes the field at a pixel, fields left aside.

    Aligners reach (kernel - 1) / 2 pixels of their level a convolution, encoders 1, and bilinear
    interpolation 1, through which a level sees the coarser ones. Where a field moves a section, it
    reaches farther by as much.
    """
    reach = (len(network["aligner_maps"]) + 1) * (network["kernel"] // 2)
    if network["correlation_px"]:
        reach += network["correlation_px"] + MATCHED_PX + 2 * SPREAD_PX
    encoder = 5 * (PRE_ENCODER_KERNEL // 2) if network["pre_encoder"] else 0
    total = farthest = 0
    for level in reversed(range(network["height"] - network["topskips"])):
        # The warped maps depend on the field at the same pixels: reaches add up over the levels.
        total += (reach + 2) * 2**level
    for level in range(network["height"] - network["topskips"]):
        encoder += 2 * (ENCODER_KERNEL // 2) * 2**level + 2**level
        farthest = encoder
    return total + farthest


def build_seamless(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> Seamless:
    """The pyramid of a network's settings; its weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta" if str(device) == "meta" else "cpu"):
            module = Seamless(network)
    return module if str(device) == "meta" else module.to(device)
