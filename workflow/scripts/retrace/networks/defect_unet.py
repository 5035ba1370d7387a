"""A 2-D U-Net that detects cracks and folds in a section (SEAMLeSS, defect_net.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.config.alignment_model import DEFECT_LEVELS as LEVELS
from retrace.networks.pooling import halve

DEFECT_CLASSES = ("gap", "fold")
"""Output channels: cracks and missing areas, and folds. SEAMLeSS does not name its two outputs."""
STEP = 2 ** (LEVELS - 1)
"""Sides of an image must be multiples of this many pixels."""
REACH = 160
"""Radius in pixels that an output depends on: 150, rounded up to a multiple of STEP."""


def _convolution(maps_in: int, maps_out: int, kernel: int = 3, padding: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(maps_in, maps_out, kernel, padding=padding)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / (kernel * kernel * maps_out)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _block(maps_in: int, maps_out: int) -> nn.Sequential:
    """Three 3 x 3 convolutions, each followed by a ReLU; padding keeps the shape."""
    layers: list[nn.Module] = []
    for number in range(3):
        layers += [_convolution(maps_in if number == 0 else maps_out, maps_out), nn.ReLU(True)]
    return nn.Sequential(*layers)


class DefectNet(nn.Module):
    """Logits (N, 2, H, W) of DEFECT_CLASSES for sections (N, 1, H, W) with mean 0 and deviation 1.

    H and W are multiples of STEP. Feature maps are upsampled by repetition (nearest neighbour).
    """

    def __init__(self, fmaps: int = 16, seed: int = 0) -> None:
        """`fmaps`: feature maps of the finest level, doubled at each coarser one (SEAMLeSS: 16).

        `seed` decides the initial weights: normal with variance 2 / (kernel area x outputs).
        """
        super().__init__()
        maps = [fmaps * 2**level for level in range(LEVELS)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                _block(before, after) for before, after in zip([1, *maps], maps, strict=False)
            )
            self.up = nn.ModuleList(_convolution(2 * m, m, 2, 0) for m in reversed(maps[:-1]))
            self.joined = nn.ModuleList(_block(2 * m, m) for m in reversed(maps[:-1]))
            self.head = _convolution(fmaps, len(DEFECT_CLASSES))

    def forward(self, sections: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = sections
        for level, block in enumerate(self.down):
            x = block(halve(x) if level else x)
            skips.append(x)
        for up, block, finer in zip(self.up, self.joined, skips[-2::-1], strict=True):
            enlarged = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat((finer, up(functional.pad(enlarged, (0, 1, 0, 1)))), dim=1))
        return self.head(x)
