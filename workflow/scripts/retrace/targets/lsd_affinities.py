"""Affinities as a target of the family lsd, with what its loss needs to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrace.targets.lsd import LabelledSample, LsdTarget

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings


def affinity_arrays(sample: LabelledSample, network: LsdNetworkSettings) -> dict[str, Tensor]:
    """`affs` (C, Z, Y, X), and weights or what a structured loss needs."""
    from retrace.targets.affinities import affinities, affinity_mask

    neighborhood = network.neighborhood
    labels = sample.labels[sample.mask_box.slices(sample.label_box.offset)]
    inside = sample.labelled if network.balance_with_mask else ~sample.excluded
    crop = (slice(None), *sample.output.slices(sample.mask_box.offset))
    target = affinities(labels, neighborhood)[crop]
    known = affinity_mask(inside, neighborhood)[crop]
    return {"affs": target, **sample.weigh_affinities(target, known, sample.output_labels)}


AFFINITIES = LsdTarget("affinities", affinity_arrays)
