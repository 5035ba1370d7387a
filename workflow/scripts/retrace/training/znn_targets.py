"""Targets, masks and rebalancing weights of ZNN's networks.

Source: seung-lab/znn-release, python/front_end/zsample and cost_fn. Differences:
docs/reference/znn.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from retrace.config.znn_network import ZnnNetworkSettings
from retrace.geometry import VoxelBox, triple
from retrace.losses.znn_balance import (
    ClassCounts,
    class_weight_map,
    class_weights,
    count_classes,
)
from retrace.targets.affinities import affinities
from retrace.targets.boundary import grow_boundary
from retrace.training.task import Batch
from retrace.training.volumes import LABELLED, TrainingVolume

SLAB = 16
"""Sections that are counted at once."""


@dataclass(frozen=True)
class ZnnTargets:
    """Turns labels into the targets, masks and weights that a network of ZNN learns from."""

    network: ZnnNetworkSettings
    dtype: torch.dtype

    @cached_property
    def is_affinity(self) -> bool:
        """Whether the targets are affinities to the lower neighbours."""
        return bool(self.network.out_type == "affinity")

    @cached_property
    def channels(self) -> list[int]:
        """Channels of each output; targets, masks and weights concatenate them."""
        return [head.channels for head in self.network.heads]

    @property
    def extra(self) -> int:
        """Voxels that labels extend below a patch: 1 for affinities."""
        return int(self.is_affinity)

    @property
    def ring(self) -> int:
        """Voxels of labels around a patch that growing the boundaries needs."""
        return self.network.grow_boundary.steps if self.network.grow_boundary else 0

    def of(self, labels: Tensor, known: Tensor, channels: int) -> Batch:
        """`target` and `mask` (C, Z, Y, X) of one output.

        `labels` extend `ring` voxels beyond `known`, and both `extra` voxels below the patch.
        """
        labels = self._with_grown_boundaries(labels, known)
        if self.is_affinity:
            neighborhood = self.network.neighborhood
            target = affinities(labels, neighborhood)[:, 1:, 1:, 1:]
            either = [known | lower_neighbour(known, axis) for axis in range(3)]
            return {"target": target, "mask": torch.stack(either)[:, 1:, 1:, 1:].float()}
        if self.network.out_type == "semantic":
            target = torch.stack([labels == number for number in range(channels)]).float()
        else:
            inside = (labels > 0).float()
            target = torch.stack((inside, 1 - inside))[:channels]
        return {"target": target, "mask": known.expand_as(target).float()}

    def _with_grown_boundaries(self, labels: Tensor, known: Tensor) -> Tensor:
        settings = self.network.grow_boundary
        if not settings:
            return labels
        ring = self.ring
        around = nn.functional.pad(known[None].float(), (ring,) * 6, mode="replicate")[0] > 0
        grown = grow_boundary(labels, around, settings.steps, settings.only_xy)
        return grown[(slice(ring, -ring),) * 3]

    def weights(self, batch: Batch, whole_volume: Sequence[Sequence[ClassCounts]] | None) -> Tensor:
        """Rebalancing weights (C, Z, Y, X) of all outputs.

        `whole_volume`: counts by output and channel to balance with; None: those of the patch.
        """
        if self.network.rebalance_mode == "none":
            return torch.ones_like(batch["target"])
        targets, masks = (torch.split(batch[key], self.channels) for key in ("target", "mask"))
        counts = whole_volume or [
            _count_channels(target, mask) for target, mask in zip(targets, masks, strict=True)
        ]
        return torch.cat([self._weigh(t, c) for t, c in zip(targets, counts, strict=True)])

    def _weigh(self, target: Tensor, counts: Sequence[ClassCounts]) -> Tensor:
        """Weights (C, Z, Y, X) of one output; affinities are balanced per direction."""
        mode = self.network.rebalance_mode
        if self.is_affinity:
            pairs = zip(target, counts, strict=True)
            return torch.stack(
                [class_weight_map(t > 0.5, c.patch_weights(), self.dtype) for t, c in pairs]
            )
        if self.network.out_type == "semantic":
            per_class = class_weights([c.positive for c in counts], mode)
            scale = torch.tensor(per_class, dtype=self.dtype)[:, None, None, None]
            return (target * scale).sum(0, keepdim=True).expand_as(target)
        first = counts[0]
        both = first.global_weights() if mode == "global" else first.patch_weights()
        return class_weight_map(target[0] > 0.5, both, self.dtype).expand_as(target)

    def count_volume(self, volume: TrainingVolume, channels: int) -> list[ClassCounts]:
        """Voxels above 0 and at 0 in the targets of a whole volume, per channel of an output."""
        slabs: list[list[ClassCounts]] = []
        box = volume.labelled
        for z in range(box.offset[0], box.end[0], SLAB):
            depth = min(SLAB, box.end[0] - z)
            slab = VoxelBox((z, *box.offset[1:]), (depth, *box.shape[1:]))
            shape = triple([n + self.extra for n in slab.shape])
            slab = VoxelBox(slab.shift((-self.extra,) * 3).offset, shape)
            labels = torch.from_numpy(volume.read_labels(slab.grow((self.ring,) * 3)))
            known = torch.from_numpy(volume.read_codes(slab) == LABELLED)
            batch = self.of(labels, known, channels)
            slabs.append(_count_channels(batch["target"], batch["mask"]))
        return [
            ClassCounts(sum(c.positive for c in channel), sum(c.zero for c in channel))
            for channel in zip(*slabs, strict=True)
        ]


def _count_channels(target: Tensor, mask: Tensor) -> list[ClassCounts]:
    """Voxels above 0 and at 0 of each channel, both (C, Z, Y, X)."""
    return [count_classes(t > 0.5, m) for t, m in zip(target, mask, strict=True)]


def lower_neighbour(known: Tensor, axis: int) -> Tensor:
    """(Z, Y, X): whether the neighbour at the lower index is known; False where there is none."""
    shifted = torch.zeros_like(known)
    size = known.shape[axis] - 1
    shifted.narrow(axis, 1, size).copy_(known.narrow(axis, 0, size))
    return shifted
