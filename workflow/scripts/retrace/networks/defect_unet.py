"""The network that finds defects in one section: a U-Net, as SEAMLeSS's defect_net.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 5
CLASSES = ("gap", "fold")
"""Its two outputs: cracks and missing areas, and folds. The stored sources do not name theirs."""
STEP = 2 ** (LEVELS - 1)
"""Sides of an image are multiples of this, pixels."""
REACH = 160
"""Pixels beyond which nothing changes an output: a multiple of STEP above its reach, 150."""


def _convolution(maps_in: int, maps_out: int, kernel: int = 3, padding: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(maps_in, maps_out, kernel, padding=padding)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / (kernel * kernel * maps_out)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _block(maps_in: int, maps_out: int) -> nn.Sequential:
    """Three convolutions 3 x 3, each followed by a rectifier; the shape stays."""
    layers: list[nn.Module] = []
    for number in range(3):
        layers += [_convolution(maps_in if number == 0 else maps_out, maps_out), nn.ReLU(True)]
    return nn.Sequential(*layers)


class DefectNet(nn.Module):
    """Logits (N, 2, H, W) of CLASSES from sections (N, 1, H, W) of mean 0 and deviation 1."""

    def __init__(self, fmaps: int = 16, seed: int = 0) -> None:
        """`fmaps`: maps of the finest level, doubled at each of the four others (SEAMLeSS: 16)."""
        super().__init__()
        maps = [fmaps * 2**level for level in range(LEVELS)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                _block(before, after) for before, after in zip([1, *maps], maps, strict=False)
            )
            self.up = nn.ModuleList(_convolution(2 * m, m, 2, 0) for m in reversed(maps[:-1]))
            self.joined = nn.ModuleList(_block(2 * m, m) for m in reversed(maps[:-1]))
            self.head = _convolution(fmaps, len(CLASSES))

    def forward(self, sections: Tensor) -> Tensor:
        kept: list[Tensor] = []
        now = sections
        for level, block in enumerate(self.down):
            now = block(functional.max_pool2d(now, 2) if level else now)
            kept.append(now)
        for up, block, finer in zip(self.up, self.joined, kept[-2::-1], strict=True):
            enlarged = functional.interpolate(now, scale_factor=2, mode="nearest")
            now = block(torch.cat((finer, up(functional.pad(enlarged, (0, 1, 0, 1)))), dim=1))
        return self.head(now)
