"""Training of the LSD family: networks for affinities, local shape descriptors, or both.

Auto-context networks read the descriptors predicted by a trained network of the family.

The steps follow the original pipelines (Sheridan et al. 2023, training scripts): raw in [0, 1],
augment, grow boundaries, descriptors, affinities, balance, raw * 2 - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import cc3d
import numpy as np
import torch
from torch import Tensor, nn

from retrace.augment import change_intensity, draw_warp, sample_linear, sample_nearest
from retrace.augment.warp import bounding_box, voxel_grid
from retrace.checkpoints.published import load_moments, load_published, read_published
from retrace.checkpoints.safetensors import load_model
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.errors import ConfigError
from retrace.formats.label_values import compact
from retrace.geometry import Triple, VoxelBox, triple
from retrace.losses.balance import balance_weights
from retrace.losses.weighted_mse import weighted_mse
from retrace.networks import UNet, build_network, centre_crop
from retrace.planning.train_settings import TrainingDataset, TrainSettings
from retrace.targets.affinities import affinities, affinity_mask
from retrace.targets.boundary import grow_boundary
from retrace.targets.lsds import compute_lsds, lsd_context
from retrace.training.loop import make_optimizer
from retrace.training.random_streams import batch_generator
from retrace.training.sampler import PatchSampler, open_sampler
from retrace.training.task import (
    Batch,
    Picture,
    PlainTask,
    TrainingInputs,
    TrainingSetup,
    on_device,
)
from retrace.training.volumes import EXCLUDED, LABELLED, UNLABELLED, TrainingVolume


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
    network: LsdNetworkSettings, voxel_size_nm: Triple, output: Triple, raw: Triple
) -> Boxes:
    """The boxes for a training that reads `raw` voxels and predicts `output` voxels."""
    offset_reach = [
        max((abs(o[axis]) for o in network.neighborhood), default=0) for axis in range(3)
    ]
    label_reach = list(offset_reach)
    if network.lsd is not None:
        reach = lsd_context(voxel_size_nm, network.lsd.sigma_nm, network.lsd.downsample)
        label_reach = [max(pair) for pair in zip(offset_reach, reach, strict=True)]
    labels = [size + 2 * reach for size, reach in zip(output, label_reach, strict=True)]
    frame = triple([max(pair) for pair in zip(raw, labels, strict=True)])

    def centred(shape: Sequence[int]) -> VoxelBox:
        begin = [(f - s) // 2 for f, s in zip(frame, shape, strict=True)]
        return VoxelBox(triple(begin), triple(shape))

    middle = centred(output)
    return Boxes(
        frame=frame,
        raw=centred(raw),
        output=middle,
        affinity_labels=middle.grow(offset_reach),
        labels=middle.grow(label_reach),
    )


@dataclass(frozen=True)
class LsdFamilyTask(PlainTask):
    """Batches and losses of the LSD family's networks.

    `context`: the trained network whose descriptors an auto-context network reads.
    """

    network: LsdNetworkSettings
    sampler: PatchSampler
    boxes: Boxes
    voxel_size_nm: Triple
    seed: int
    device: torch.device
    context: UNet | None = None

    observed: ClassVar[int] = 0

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Names of the network's heads."""
        return tuple(head.name for head in self.network.heads)

    @cached_property
    def batch_size(self) -> int:
        """Samples per iteration."""
        return self.network.batch_size

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """Raw (1, 1, Z, Y, X) in [-1, 1], and per head target and weight, on the device.

        Classes are balanced and losses normalised within one sample, as in the original pipelines.
        """
        rng = batch_generator(self.seed, number)
        iteration = number // self.batch_size
        raw, labels, codes = self._augmented(rng)
        labels = self._grown(labels, codes)
        inner = self.boxes.output
        batch = {"raw": raw[None, None] * 2 - 1}
        at_output = inner.slices(self.boxes.affinity_labels.offset)
        batch["labels"] = labels[inner.slices(self.boxes.labels.offset)]
        batch["labels_mask"] = codes[at_output] == LABELLED
        if "lsds" in self.heads:
            batch["lsds"] = self._descriptors(labels)
            batch["lsds_weight"] = self._descriptor_weight(batch["labels"], codes[at_output])
        if "affs" in self.heads:
            near = labels[self.boxes.affinity_labels.slices(self.boxes.labels.offset)]
            batch["affs"], known = self._affinities(near, codes)
            if self._is_structured(iteration + 1):
                batch["affs_known"], batch["objects"] = known, connected_objects(batch["labels"])
            else:
                batch["affs_weight"] = balance_weights(batch["affs"], known)
        return batch

    def begins_phase(self, iteration: int) -> bool:
        """True for the first iteration with MALIS, where the original creates a new Adam."""
        return self._is_structured(iteration) and not self._is_structured(iteration - 1)

    def _is_structured(self, iteration: int) -> bool:
        """Whether `iteration` (from 1) is trained with MALIS."""
        loss = self.network.loss
        return bool(loss.kind == "malis" and iteration > loss.start_iteration)

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Outputs per head, (1, C, Z, Y, X)."""
        outputs: dict[str, Tensor] = module(self.network_input(batch))
        return outputs

    def network_input(self, batch: Batch) -> Tensor:
        """The network's input from a batch, (1, C, Z, Y, X)."""
        return batch["raw"] if self.context is None else self._with_context(batch["raw"])

    @torch.no_grad()
    def _with_context(self, raw: Tensor) -> Tensor:
        """Descriptors (1, 10, Z, Y, X), or raw and descriptors (1, 11, Z, Y, X).

        `raw` (1, 1, Z', Y', X') in [-1, 1] includes the context of the network that predicts the
        descriptors. These are truncated to the 256 levels of uint8, as if read from disk.
        """
        assert self.context is not None
        lsds = (self.context(raw)["lsds"] * 255).to(torch.uint8).float() / 255
        shape = self.network.input_shape
        lsds = centre_crop(lsds, shape)
        if self.network.input_channels == lsds.shape[1]:
            return lsds
        return torch.cat((centre_crop(raw, shape), lsds), dim=1)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """One weighted mean squared error per head, or MALIS; their sum is the loss."""
        if "objects" in batch:
            # Imported here, because compiling MALIS takes seconds.
            from retrace.losses.malis import malis_loss

            targets = (batch["affs"], batch["affs_known"], batch["objects"])
            return {"affs": malis_loss(outputs["affs"][0], *targets, self.network.neighborhood)}
        return {
            head: weighted_mse(outputs[head][0], batch[head], batch[f"{head}_weight"])
            for head in self.heads
        }

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Raw, labels, mask, and per head target and prediction, at their places in the frame."""
        raw = ((batch["raw"][0, 0] + 1) * 127.5).round().to(torch.uint8)
        where = self.boxes.output.to_nm(self.voxel_size_nm).offset
        pictures = {
            "raw": Picture(raw, self.boxes.raw.to_nm(self.voxel_size_nm).offset),
            "labels": Picture(batch["labels"], where),
            "labels_mask": Picture(batch["labels_mask"].to(torch.uint8), where),
        }
        for head in self.heads:
            for kind, data in (("gt", batch[head]), ("pred", outputs[head][0])):
                scaled = (data.detach().float() * 255).to(torch.uint8)
                pictures[f"{kind}_{head}"] = Picture(scaled, where)
        return pictures

    def _augmented(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented raw of the input, labels (int64) and codes in their boxes, each (Z, Y, X)."""
        index = self.sampler.choose(rng)
        warp = draw_warp(rng, self.network.augment, self.boxes.frame)
        needs = warp.reach(self.boxes.labels), warp.reach(self.boxes.affinity_labels)
        shift = self.sampler.place(rng, index, *needs)
        volume = self.sampler.volumes[index]
        points = warp.source(voxel_grid(VoxelBox((0, 0, 0), self.boxes.frame), self.device))
        raw = self._read_raw(volume, points[(slice(None), *self.boxes.raw.slices())], shift)
        for step in self.network.augment:
            if step.intensity is not None:
                raw = change_intensity(
                    raw,
                    rng,
                    scale=step.intensity.scale,
                    shift=step.intensity.shift,
                    per_section=step.intensity.per_section,
                )
        points = points[(slice(None), *self.boxes.labels.slices())]
        return raw, *self._read_labels(volume, points, shift)

    def _read_raw(self, volume: TrainingVolume, points: Tensor, shift: Triple) -> Tensor:
        box = bounding_box(points)
        block = self._to_device(volume.read_raw(box.shift(shift)))
        scale = 1 / 255 if block.dtype == torch.uint8 else 1.0
        return sample_linear(block.float() * scale, _relative(points, box))

    def _read_labels(
        self, volume: TrainingVolume, points: Tensor, shift: Triple
    ) -> tuple[Tensor, Tensor]:
        box = bounding_box(points)
        labels = self._to_device(volume.read_labels(box.shift(shift)))
        codes = self._to_device(volume.read_codes(box.shift(shift)))
        points = _relative(points, box)
        inner = (slice(None), *self.boxes.affinity_labels.slices(self.boxes.labels.offset))
        return sample_nearest(labels, points).long(), sample_nearest(codes, points[inner])

    def _to_device(self, array: np.ndarray) -> Tensor:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _grown(self, labels: Tensor, codes: Tensor) -> Tensor:
        """Grows boundaries where the mask is known; further out, labels stay as they are."""
        settings = self.network.grow_boundary
        if settings:
            part = self.boxes.affinity_labels.slices(self.boxes.labels.offset)
            mask = codes == LABELLED
            labels[part] = grow_boundary(
                labels[part].clone(), mask, settings.steps, settings.only_xy
            )
        return labels

    def _descriptors(self, labels: Tensor) -> Tensor:
        settings = self.network.lsd
        assert settings is not None
        begin = [-offset for offset in self.boxes.labels.offset]
        roi = self.boxes.output.shift(begin)
        sigma, step = settings.sigma_nm, settings.downsample
        return compute_lsds(labels, self.voxel_size_nm, sigma, step, roi)

    def _descriptor_weight(self, labels: Tensor, codes: Tensor) -> Tensor:
        """Voxels that count in the descriptors' loss, (Z, Y, X); `lsd_weight` chooses which."""
        mode = self.network.lsd_weight
        if mode == "labels_mask":
            return codes == LABELLED
        if mode == "foreground_or_unmasked":
            return ((labels != 0) | (codes == UNLABELLED)) & (codes != EXCLUDED)
        return labels != 0

    def _affinities(self, labels: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Target affinities and where they are known, each (C, Z, Y, X)."""
        neighborhood = self.network.neighborhood
        known = codes == LABELLED if self.network.balance_with_mask else codes != EXCLUDED
        crop = (slice(None), *self.boxes.output.slices(self.boxes.affinity_labels.offset))
        target = affinities(labels, neighborhood)[crop]
        return target, affinity_mask(known, neighborhood)[crop]


def connected_objects(labels: Tensor) -> Tensor:
    """Labels (Z, Y, X) split into 6-connected components, int64.

    As gunpowder's RenumberConnectedComponents, which the original runs before MALIS.
    """
    numbers = compact(labels.cpu().numpy())
    parts = cc3d.connected_components(numbers.astype(np.uint32), connectivity=6)
    return torch.from_numpy(parts.astype(np.int64)).to(labels.device)


def _relative(points: Tensor, box: VoxelBox) -> Tensor:
    origin = torch.tensor(box.offset, device=points.device, dtype=points.dtype)
    return points - origin.reshape(3, *[1] * (points.ndim - 1))


def build_lsd_task(
    network: LsdNetworkSettings,
    module: UNet,
    sampler: PatchSampler,
    voxel_size_nm: Triple,
    seed: int,
    device: torch.device,
    context: UNet | None = None,
) -> LsdFamilyTask:
    """The task of a network of this family; ConfigError for settings that contradict each other.

    `context`: the trained network that an auto-context network reads, on the device.
    """
    _check_context(network, context)
    output = module.output_shape(network.input_shape)
    shape = triple(network.input_shape)
    raw = shape if context is None else triple(context.valid_shape(shape))
    boxes = batch_boxes(network, voxel_size_nm, output, raw)
    return LsdFamilyTask(network, sampler, boxes, voxel_size_nm, seed, device, context)


def _check_context(network: LsdNetworkSettings, context: UNet | None) -> None:
    name, channels = network.autocontext, network.input_channels
    if bool(name) != (context is not None) or bool(name) != (channels > 1):
        raise ConfigError(
            f"network {network.name!r} reads {channels} channels with autocontext {name!r}; "
            "name a network that predicts descriptors under `autocontext` and give its model, or "
            "set `input_channels: 1`"
        )


def load_context(settings: TrainSettings, model: Path | None, device: torch.device) -> UNet | None:
    """The frozen network whose descriptors are read; None without auto-context."""
    network = settings.autocontext
    if network is None:
        return None
    if model is None:
        raise ConfigError(
            f"network {settings.network.name!r} reads what {network.name!r} predicts; "
            "give its model with --context"
        )
    module = build_network(network)
    load_model(model, module, network)
    return on_device(module.requires_grad_(False).eval(), device)


def set_up_lsd(inputs: TrainingInputs, module: UNet) -> TrainingSetup:
    """Prepares a training of the LSD family."""
    settings, weights, device = inputs.settings, inputs.weights, inputs.device
    network, dataset = settings.network, settings.dataset
    assert isinstance(network, LsdNetworkSettings) and isinstance(dataset, TrainingDataset)
    if weights.init and inputs.is_new:
        load_model(weights.init, module, network)
    module = on_device(module, device)
    sampler = open_sampler(
        dataset,
        dataset.train,
        inputs.masks,
        padding_nm=network.label_padding_nm,
        min_masked=network.min_masked,
        field_of_view=module.valid_shape(),
        processes=inputs.processes,
    )
    voxel_size_nm = dataset.voxel_size_nm
    context = load_context(settings, weights.context, device)
    task = build_lsd_task(network, module, sampler, voxel_size_nm, settings.seed, device, context)
    adam = network.optimizer
    optimizer = make_optimizer(module, lr=adam.lr, betas=adam.betas, eps=adam.eps)
    begun = 0
    if weights.published and inputs.is_new:
        begun = load_published_weights(weights.published, module, optimizer, network.name)
    return TrainingSetup(task, optimizer, module, begun, adam.average)


def load_published_weights(
    folder: Path, module: UNet, optimizer: torch.optim.Optimizer, network: str
) -> int:
    """Loads weights and Adam's moments of a published checkpoint; returns its iteration."""
    checkpoint = read_published(folder)
    load_published(checkpoint, module, network)
    moments = load_moments(checkpoint, module, optimizer)
    print(
        f"[train] continues from {checkpoint.source.name}, "
        f"{'with' if moments else 'without'} the moments of its optimiser",
        flush=True,
    )
    return checkpoint.iteration
