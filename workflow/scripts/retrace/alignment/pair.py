"""SEAMLeSS's network with the preparation of its input: from two sections to a field.

Packaged networks run with it. It does what `aligner` does for one window, without tiles and votes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.networks.seamless import FieldOptions, Pyramid, Seamless

FIELD = "field"
"""Name of the output."""


class PairAligner(Seamless):
    """Seamless with the same weights, but for raw grey values; returns only the field."""

    def __init__(self, pyramid: Pyramid, options: FieldOptions, *, radius_px: int | None) -> None:
        """`radius_px`: see `prepare_sections`."""
        super().__init__(pyramid)
        self.options = options
        self.radius_px, self.fill = radius_px, pyramid.mean

    def forward(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The field (N, 2, H, W) px from grey values (N, 1, H, W), 0 to 255.

        Areas of 5 x 5 zeros or more count as not imaged. DataError if the sides cannot be halved as
        often as the pyramid has levels.
        """
        source, target = (self._prepared(section / 255) for section in (source, target))
        return {FIELD: self.field(source, target, self.options)}

    def _prepared(self, section: Tensor) -> Tensor:
        valid = valid_mask(section)
        return prepare_sections(section, valid, radius_px=self.radius_px, fill=self.fill)[1]


def build_pair_aligner(
    pyramid: Pyramid,
    options: FieldOptions,
    *,
    radius_px: int | None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> PairAligner:
    """A `PairAligner` with initial weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PairAligner(pyramid, options, radius_px=radius_px).to(device)
