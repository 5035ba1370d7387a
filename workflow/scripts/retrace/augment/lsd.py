"""What a step of the augmentation of the family lsd declares.

Needs no torch, so that settings can be checked without. A step is one module that defines an
`LsdAugmentation`, and one line in the family's entry in `retrace.config.families`. It imports torch
inside its functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from retrace.geometry import Triple
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from retrace.augment.resample import Coordinates


class Move(Protocol):
    """A map from output voxels to source coordinates."""

    def source(self, points: Coordinates) -> Coordinates:
        """Source coordinates of output `points`, voxels: three rows z, y, x that broadcast."""
        ...

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of a box that holds all source coordinates."""
        ...


@dataclass(frozen=True)
class LsdAugmentation:
    """A step of the augmentation, under its name in `augment`. It has `draw` or `change`."""

    about: str
    """A few words for the page of settings."""
    settings: type[SettingsModel]
    """The settings of the step."""
    draw: Callable[[np.random.Generator, Triple, Any], Move] | None = None
    """Function (rng, shape, settings) that draws how voxels move, for an output of `shape`
    voxels (z, y, x)."""
    change: Callable[[Tensor, np.random.Generator, Any], Tensor] | None = None
    """Function (raw, rng, settings) that changes the grey values of raw, (Z, Y, X) in [0, 1]."""
