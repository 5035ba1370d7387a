"""Patches of volumes for ZNN's networks: images by input node, labels by output.

Source: seung-lab/znn-release, python/front_end/zsample. Differences: docs/reference/znn.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from retrace.config.dataset_model import Entry
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox, triple
from retrace.networks import ZnnNetwork
from retrace.planning.train_settings import TrainingDataset
from retrace.storage.normalised import NormalisedImage, open_normalised
from retrace.storage.volumes import open_source
from retrace.training.sampler import (
    GroundTruthCount,
    PatchSampler,
    TooSmallError,
    check_ground_truth,
    open_sampler,
    open_unless_too_small,
)
from retrace.training.task import Batch
from retrace.training.volumes import (
    LABELLED,
    TrainingVolume,
    check_classes,
    labels_in_memory,
    open_training_volume,
)
from retrace.training.znn_targets import ZnnTargets


@dataclass(frozen=True)
class ZnnVolumes:
    """Volumes that patches are drawn from."""

    sampler: PatchSampler
    images: tuple[tuple[NormalisedImage, ...], ...]
    """Per volume its images, by input node."""
    labels: tuple[tuple[TrainingVolume, ...], ...]
    """Per volume its labels, by output; the first are those of `sampler`."""


@dataclass(frozen=True)
class PatchCutter:
    """Cuts patches for one network: an augmented image with its targets."""

    network: ZnnNetworkSettings
    targets: ZnnTargets
    context: Triple
    """Voxels (z, y, x) by which the input of a patch exceeds its output."""

    @property
    def output(self) -> Triple:
        """Shape of a patch's output, voxels."""
        return triple(self.network.train_outsz)

    def cut(self, volumes: ZnnVolumes, rng: np.random.Generator) -> tuple[int, Batch]:
        """Index of the volume, and `input` (1, C, Z, Y, X), `target` and `mask` (C, Z, Y, X)."""
        index = volumes.sampler.choose(rng)
        volume = volumes.sampler.volumes[index]
        extra, ring = self.targets.extra, self.targets.ring
        box = VoxelBox((0, 0, 0), triple([n + extra for n in self.output]))
        window = self._window(box)
        middle = VoxelBox(triple([(n - 1) // 2 for n in box.shape]), (1, 1, 1))
        inside_image = window if self.network.predict_padding == "valid" else None
        shift = volumes.sampler.place(rng, index, box, middle, inside_image)
        flips = rng.random(4) < 0.5 if self.network.is_data_aug else np.zeros(4, bool)
        images = [i.read(window.shift(shift), volume.visible) for i in volumes.images[index]]
        heads = []
        for labelled, channels in zip(volumes.labels[index], self.targets.channels, strict=True):
            labels = flipped(labelled.read_labels(box.shift(shift).grow((ring,) * 3)), flips)
            known = flipped(labelled.read_codes(box.shift(shift)) == LABELLED, flips)
            heads.append(
                self.targets.of(
                    torch.from_numpy(labels.copy()), torch.from_numpy(known.copy()), channels
                )
            )
        batch = {key: torch.cat([head[key] for head in heads]) for key in ("target", "mask")}
        crop = (slice(extra, None),) * 3
        batch["input"] = torch.from_numpy(np.stack([flipped(i, flips)[crop] for i in images]))[None]
        return index, batch

    def _window(self, box: VoxelBox) -> VoxelBox:
        """The box of the image that the output `box` needs."""
        lead = triple([-(lost // 2) for lost in self.context])
        sides = zip(box.shape, self.context, strict=True)
        return VoxelBox(box.offset, triple([n + lost for n, lost in sides])).shift(lead)


def flipped(values: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """(Z, Y, X) flipped along z, y, x and with y and x transposed, each if its flag is set."""
    for axis in range(3):
        if flips[axis]:
            values = np.flip(values, axis)
    return values.transpose(0, 2, 1) if flips[3] else values


def open_znn_volumes(
    network: ZnnNetworkSettings,
    module: ZnnNetwork,
    dataset: TrainingDataset,
    entries: Sequence[Entry],
    masks: Mapping[str, Path],
    processes: int = 1,
) -> ZnnVolumes:
    """Opens volumes and images of entries; TooSmallError if a patch does not fit into one."""
    valid = network.predict_padding == "valid"
    extra = int(network.out_type == "affinity")
    output = [n + extra for n in network.train_outsz]
    sampler = open_sampler(
        dataset,
        entries,
        masks,
        padding_nm=(0, 0, 0),
        min_masked=1.0,
        field_of_view=module.valid_shape(output) if valid else (1, 1, 1),
        processes=processes,
    )
    for volume in sampler.volumes:
        _check_patch_fits(network, volume, output)
        if network.out_type == "semantic":
            check_classes(volume, network)
    opened = {name: _images(network, dataset, name) for name in {v.name for v in sampler.volumes}}
    images = tuple(opened[v.name] for v in sampler.volumes)
    pairs = zip(entries, sampler.volumes, strict=True)
    return ZnnVolumes(sampler, images, tuple(_labels(network, dataset, *pair) for pair in pairs))


def _check_patch_fits(
    network: ZnnNetworkSettings, volume: TrainingVolume, output: Sequence[int]
) -> None:
    if any(have < need for have, need in zip(volume.labelled.shape, output, strict=True)):
        raise TooSmallError(
            f"volume {volume.name!r}: train_outsz {list(network.train_outsz)} of network "
            f"{network.name!r} is larger than the labels, {list(volume.labelled.shape)} "
            "voxels; set a smaller train_outsz, or use a larger volume"
        )


def _labels(
    network: ZnnNetworkSettings,
    dataset: TrainingDataset,
    entry: Entry,
    first: TrainingVolume,
) -> tuple[TrainingVolume, ...]:
    """The labels of each output of one entry; `first`: those of its `labels`."""
    if len(network.heads) == 1:
        return (first,)
    sources = dataset.volumes[entry.volume]
    volumes = []
    own_labels = {network.heads[0].node: sources.labels, **sources.outputs}
    for head in network.heads:
        labels = own_labels[head.node]
        mask = sources.outputs_mask.get(head.node)
        if labels == sources.labels:
            volumes.append(first)
            continue
        volume = open_training_volume(dataset, entry, None, labels)
        volume = replace(volume, mask=open_source(mask) if mask else None)
        check_ground_truth(volume, GroundTruthCount(volume))
        if network.out_type == "semantic":
            check_classes(volume, network)
        volumes.append(labels_in_memory(volume))
    return tuple(volumes)


def open_test_volumes(
    network: ZnnNetworkSettings,
    module: ZnnNetwork,
    dataset: TrainingDataset,
    masks: Mapping[str, Path],
) -> ZnnVolumes | None:
    """Volumes of the validation split; None without one, or if no patch fits into it."""
    entries = dataset.validation
    if not entries:
        return None
    return open_unless_too_small(lambda: open_znn_volumes(network, module, dataset, entries, masks))


def _images(
    network: ZnnNetworkSettings, dataset: TrainingDataset, name: str
) -> tuple[NormalisedImage, ...]:
    """Raw and the further inputs of a volume; DataError if they are not on the same voxels."""
    sources = dataset.volumes[name]
    images = [open_normalised(sources.raw)]
    for node in network.inputs[1:]:
        images.append(open_normalised(sources.inputs[node]))
        if images[-1].volume.box != images[0].volume.box:
            raise DataError(
                f"{images[-1].volume.name} does not cover the same voxels as "
                f"{images[0].volume.name}; all images of a volume must"
            )
    return tuple(images)
