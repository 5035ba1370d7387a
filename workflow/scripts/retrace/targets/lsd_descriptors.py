"""Local shape descriptors as a target of the family lsd; settings `lsd` and `lsd_weight`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrace.targets.lsd import LabelledSample, LsdTarget

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings


def descriptor_arrays(sample: LabelledSample, network: LsdNetworkSettings) -> dict[str, Tensor]:
    """`lsds` (10, Z, Y, X) and their weight (Z, Y, X) bool."""
    from retrace.targets.lsds import compute_lsds

    settings = network.lsd
    assert settings is not None
    roi = sample.output.shift([-offset for offset in sample.label_box.offset])
    sigma, step = settings.sigma_nm, settings.downsample
    lsds = compute_lsds(sample.labels, sample.voxel_size_nm, sigma, step, roi)
    return {"lsds": lsds, "lsds_weight": _weight(sample, network.lsd_weight)}


def _weight(sample: LabelledSample, mode: str) -> Tensor:
    """Voxels that count in the descriptors' loss, (Z, Y, X); `mode` chooses which."""
    labels = sample.output_labels
    labelled, excluded = (sample.of_output(m) for m in (sample.labelled, sample.excluded))
    if mode == "labels_mask":
        return labelled
    if mode == "foreground_or_unmasked":
        return ((labels != 0) | ~labelled) & ~excluded
    return labels != 0


DESCRIPTORS = LsdTarget("local shape descriptors", descriptor_arrays)
