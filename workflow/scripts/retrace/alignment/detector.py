"""Ternary masks of defects from the defect network, as in SEAMLeSS's defect_detector.py."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from retrace.checkpoints.safetensors import load_weights, read_metadata
from retrace.config.schema import check
from retrace.errors import DataError
from retrace.networks.defect_unet import REACH, STEP, DefectNet
from retrace.setting_types import Count
from retrace.settings_model import SettingsModel
from retrace.targets.ternary import ternary

CENTRE, EDGE, CORNER = 3 / 4, 1 / 24, 1 / 48
"""Weights of the blur before the network; all nine sum to 1."""
EPSILON = 1e-6
TILE = 1024
"""Edge of a tile, pixels, without the context that the network needs; a multiple of its STEP."""


def standardise(sections: Tensor) -> Tensor:
    """Sections (N, H, W), each blurred and scaled to mean 0 and deviation 1: (N, 1, H, W)."""
    smooth = blurred(functional.pad(sections[:, None], (1, 1, 1, 1), mode="replicate"))
    mean = smooth.mean((2, 3), keepdim=True)
    return (smooth - mean) / (smooth.std((2, 3), keepdim=True) + EPSILON)


def blurred(padded: Tensor) -> Tensor:
    """Sections (N, 1, H + 2, W + 2) blurred over 3 x 3 pixels: (N, 1, H, W)."""
    kernel = padded.new_tensor(
        [[CORNER, EDGE, CORNER], [EDGE, CENTRE, EDGE], [CORNER, EDGE, CORNER]]
    )
    return functional.conv2d(padded, kernel[None, None])


def without_specks(mask: np.ndarray, smallest_px: int) -> np.ndarray:
    """A mask (H, W) bool without 8-connected components of fewer than `smallest_px` pixels."""
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = sizes >= smallest_px
    keep[0] = False
    return np.asarray(keep[pieces])


class Detector:
    """Computes ternary masks of sections, each section on its own."""

    def __init__(
        self,
        network: DefectNet,
        device: torch.device | str = "cpu",
        *,
        threshold: float,
        smallest_px: int,
        near_px: int,
        tile: int = TILE,
    ) -> None:
        """`threshold`: lowest smoothed probability of a defect, 0 to 1.

        Components of fewer than `smallest_px` pixels are dropped; label 1 reaches `near_px` pixels
        around a defect.
        """
        self.network = network.to(device).eval()
        self.threshold, self.smallest_px, self.near_px = threshold, smallest_px, near_px
        self.device, self.tile = torch.device(device), tile

    def __call__(self, stack: np.ndarray | Tensor) -> np.ndarray:
        """Ternary masks (S, H, W) uint8 of sections (S, H, W), uint8 or float in [0, 1].

        A constant section is a defect as a whole. DataError for an empty stack.
        """
        sections = torch.as_tensor(stack)
        if sections.ndim != 3 or 0 in sections.shape:
            raise DataError(f"a stack of shape {tuple(sections.shape)}; (S, H, W) is needed")
        return np.stack([self.mask(section.float()) for section in sections])

    def mask(self, section: Tensor) -> np.ndarray:
        """The ternary mask (H, W) uint8 of one section (H, W); DataError for NaN."""
        if bool(section.max() == section.min()):
            return np.full(section.shape, 2, np.uint8)
        probability = self.smoothed(section)
        check_finite(probability)
        inside = self.inside(probability)
        return ternary(torch.from_numpy(inside), self.near_px).numpy()

    def inside(self, probability: Tensor) -> np.ndarray:
        """Where a probability (H, W) is above the threshold, without specks, (H, W) bool."""
        above = (probability > self.threshold).cpu().numpy()
        return without_specks(above, self.smallest_px)

    def smoothed(self, section: Tensor) -> Tensor:
        """Probability (H, W) of the likelier defect class, max- then mean-pooled 3 x 3."""
        return self.pooled(self.logits(section.to(self.device)))

    @torch.no_grad()
    def predict(self, image: Tensor) -> Tensor:
        """Logits (2, H, W) of a standardised image (1, 1, H, W); multiples of the network's STEP.

        DataError for NaN.
        """
        logits: Tensor = self.network(image.to(self.device))[0]
        check_finite(logits)
        return logits

    def pooled(self, logits: Tensor) -> Tensor:
        """Probability (H, W) of the likelier class of logits (2, H, W), pooled as `smoothed`."""
        probability = torch.sigmoid(logits.amax(0))[None, None]
        widest = functional.max_pool2d(probability, 3, 1, 1)
        return functional.avg_pool2d(widest, 3, 1, 1, count_include_pad=False)[0, 0]

    @torch.no_grad()
    def logits(self, section: Tensor) -> Tensor:
        """Logits (2, H, W) of a section (H, W), tile by tile; equal to those of one pass."""
        height, width = section.shape
        down, right = -height % STEP, -width % STEP
        image = functional.pad(standardise(section[None]), (0, right, 0, down), mode="replicate")
        result = image.new_empty((2, *image.shape[2:]))
        for y in range(0, image.shape[2], self.tile):
            for x in range(0, image.shape[3], self.tile):
                self._fill(result, image, y, x)
        return result[:, :height, :width]

    def _fill(self, result: Tensor, image: Tensor, y: int, x: int) -> None:
        """Predicts the tile with corner (y, x) into `result`, reading its context from `image`."""
        top, left = max(0, y - REACH), max(0, x - REACH)
        bottom, right = y + self.tile, x + self.tile
        window = image[:, :, top : bottom + REACH, left : right + REACH]
        logits = self.network(window)[0, :, y - top : bottom - top, x - left : right - left]
        result[:, y:bottom, x:right] = logits


def check_finite(values: Tensor) -> None:
    """DataError if the network's output is NaN somewhere."""
    if not torch.isfinite(values).all():
        raise DataError(
            "the network that finds defects predicts NaN: its training diverged. Train it "
            "again with a lower `defects: learning_rate`"
        )


def load_defect_network(path: Path) -> DefectNet:
    """A trained defect network; DataError if the file holds another network."""
    stored = read_metadata(path).get("network", {})
    if stored.get("family") != FAMILY:
        raise DataError(
            f"{path} holds a network of the family {stored.get('family')!r}, not one that finds "
            "defects; train one with the target train_defects_DATASET"
        )
    network = DefectNet(check(StoredDefectNetwork, stored, f"network in {path}").fmaps)
    load_weights(path, network, FAMILY)
    return network


FAMILY = "defects"
"""The family in the metadata of a defect network's weights."""


class StoredDefectNetwork(SettingsModel):
    """The network's settings, as stored with its weights."""

    name: Literal["defects"] = "defects"
    family: Literal["defects"] = "defects"
    fmaps: Count = Field(description="Feature maps of the finest level.")
