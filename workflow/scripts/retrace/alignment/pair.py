"""SEAMLeSS's network with the preparation of its input: from two sections to a field.

Packaged networks run with it. It does what `aligner` does for one window, without tiles and votes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.networks.seamless import Seamless

FIELD = "field"
"""Name of the output."""


class PairAligner(Seamless):
    """Seamless with the same weights, but for raw grey values; returns only the field."""

    def __init__(self, network: Mapping[str, Any]) -> None:
        """`network`: settings of the family seamless."""
        super().__init__(network)
        self.network = {key: network[key] for key in ("contrast", "input")}
        self.flip_average: bool = network["align"]["flip_average"]

    def forward(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The field (N, 2, H, W) px from grey values (N, 1, H, W), 0 to 255.

        Areas of 5 x 5 zeros or more count as not imaged. DataError if the sides cannot be halved as
        often as the pyramid has levels.
        """
        inputs = (self._prepared(section / 255) for section in (source, target))
        return {FIELD: self.field(*inputs, flip_average=self.flip_average)}

    def _prepared(self, section: Tensor) -> Tensor:
        return prepare_sections(section, valid_mask(section), self.network)[1]


def build_pair_aligner(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> PairAligner:
    """The module of a network of the family seamless; its weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PairAligner(network).to(device)
