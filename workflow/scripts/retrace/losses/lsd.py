"""What a loss of the family lsd declares.

Needs no torch, so that settings can be checked without. A loss is one module that defines an
`LsdLoss`, and one line in the family's entry in `retrace.config.families`. It imports torch inside
its functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings


@dataclass(frozen=True)
class LsdLoss:
    """A loss of the family lsd; its name is the `kind` of the network's `loss`."""

    about: str
    """A few words for the page of settings."""
    terms: Callable[
        [Mapping[str, Tensor], Mapping[str, Tensor], LsdNetworkSettings], dict[str, Tensor]
    ]
    """Function (outputs, batch, network) -> scalars by name, whose sum is minimised. Outputs are
    (1, C, Z, Y, X) by head; the batch has their targets (C, Z, Y, X) under the same names, and
    weights as HEAD_weight."""
    affinity_inputs: Callable[[Tensor, Tensor], dict[str, Tensor]] | None = None
    """Function (known, labels) -> what the batch has in place of `affs_weight`. `known`
    (C, Z, Y, X): where affinities are known; `labels` (Z, Y, X)."""
    settings: type[SettingsModel] = SettingsModel
    """Settings that `loss` has for it; each needs a default."""
