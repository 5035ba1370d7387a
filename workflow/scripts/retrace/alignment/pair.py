"""The pyramid with what prepares its input: sections as they were imaged to a field.

What `aligner` does for a window, without tiles and without votes; packaged networks run with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrace.alignment.prepare import prepared, valid_mask
from retrace.networks.seamless import Seamless

FIELD = "field"
"""The name of what is given."""


class PairAligner(Seamless):
    """The same weights as Seamless; reads grey values, evens contrast, gives the field alone."""

    def __init__(self, network: Mapping[str, Any]) -> None:
        """`network`: the settings of config/schemas/seamless_network.schema.yaml."""
        super().__init__(network)
        self.network = {key: network[key] for key in ("contrast", "input")}
        self.flip_average: bool = network["align"]["flip_average"]

    def forward(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Grey values (N, 1, H, W) 0 to 255 to the field (N, 2, H, W), pixels of this grid.

        Areas of 5 x 5 zeros or more count as not imaged. DataError where the pyramid cannot halve
        the sides often enough.
        """
        shown = (self._shown(section / 255) for section in (source, target))
        return {FIELD: self.field(*shown, flip_average=self.flip_average)}

    def _shown(self, section: Tensor) -> Tensor:
        return prepared(section, valid_mask(section), self.network)[1]


def build_pair_aligner(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> PairAligner:
    """The module of a network of the family seamless; its weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PairAligner(network).to(device)
