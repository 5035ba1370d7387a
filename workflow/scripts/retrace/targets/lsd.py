"""What a target of the family lsd declares.

Needs no torch, so that settings can be checked without. A target is one module that defines an
`LsdTarget`, and one line in the family's entry in `retrace.config.families`. It imports torch
inside its functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrace.geometry import NmTriple, VoxelBox
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings

Weigh = Callable[["Tensor", "Tensor", "Tensor"], "dict[str, Tensor]"]
"""Function (affinities, known, labels at the output) -> what the loss needs to know of them."""


@dataclass(frozen=True)
class LabelledSample:
    """Augmented labels of one sample, from which its targets are computed."""

    labels: Tensor
    """Labels (Z, Y, X) int64 in `label_box`."""
    labelled: Tensor
    """Where there is ground truth, (Z, Y, X) bool in `mask_box`."""
    excluded: Tensor
    """What is held out for validation or test, (Z, Y, X) bool in `mask_box`."""
    label_box: VoxelBox
    mask_box: VoxelBox
    """A part of `label_box`: the output and the offsets of the affinities around it."""
    output: VoxelBox
    """What the network predicts, a part of both boxes, voxels in the same frame."""
    voxel_size_nm: NmTriple
    weigh_affinities: Weigh

    @property
    def output_labels(self) -> Tensor:
        """Labels (Z, Y, X) of the output."""
        return self.labels[self.output.slices(self.label_box.offset)]

    def of_output(self, mask: Tensor) -> Tensor:
        """`labelled` or `excluded` (Z, Y, X) of the output."""
        return mask[self.output.slices(self.mask_box.offset)]


@dataclass(frozen=True)
class LsdTarget:
    """A target of the family lsd; its name is the name of the head that predicts it."""

    about: str
    """A few words for the page of settings."""
    arrays: Callable[[LabelledSample, LsdNetworkSettings], dict[str, Tensor]]
    """The target (C, Z, Y, X) in [0, 1] under its name, and its weight as NAME_weight."""
    reach_nm: Callable[[Any], float] | None = None
    """From the head's settings how far around the output the target reads labels, nm. Offsets of
    affinities and the window of `lsd` are always read."""
    settings: type[SettingsModel] = SettingsModel
    """Settings that the head has for it; each needs a default."""
