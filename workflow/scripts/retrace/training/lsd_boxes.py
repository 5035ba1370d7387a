"""The boxes that a batch of the family lsd is read from."""

from __future__ import annotations

from dataclasses import dataclass

from retrace.config.lsd_network import LsdNetworkSettings, reach_of_targets
from retrace.geometry import NmTriple, Triple, VoxelBox, triple
from retrace.targets.lsds import lsd_context


@dataclass(frozen=True)
class Boxes:
    """The concentric boxes of one batch in a common frame, voxels.

    `affinity_labels`: where mask and labels are needed for the affinities. `labels`: where labels
    are needed, also for the descriptors.
    """

    frame: Triple
    raw: VoxelBox
    output: VoxelBox
    affinity_labels: VoxelBox
    labels: VoxelBox


def batch_boxes(
    network: LsdNetworkSettings, voxel_size_nm: NmTriple, output: Triple, raw: Triple
) -> Boxes:
    """The boxes for a training that reads `raw` voxels and predicts `output` voxels."""
    offset_reach = [
        max((abs(o[axis]) for o in network.neighborhood), default=0) for axis in range(3)
    ]
    reaches = [offset_reach, reach_of_targets(network, voxel_size_nm)]
    if network.lsd is not None:
        reaches.append(lsd_context(voxel_size_nm, network.lsd.sigma_nm, network.lsd.downsample))
    label_reach = [max(axis) for axis in zip(*reaches, strict=True)]
    labels = [size + 2 * reach for size, reach in zip(output, label_reach, strict=True)]
    frame = triple([max(pair) for pair in zip(raw, labels, strict=True)])

    whole = VoxelBox((0, 0, 0), frame)
    middle = whole.central(output)
    return Boxes(
        frame=frame,
        raw=whole.central(raw),
        output=middle,
        affinity_labels=middle.grow(offset_reach),
        labels=middle.grow(label_reach),
    )
