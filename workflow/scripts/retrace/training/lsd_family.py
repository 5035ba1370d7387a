"""Training of the LSD family: networks for affinities, local shape descriptors, or both.

Auto-context networks read the descriptors predicted by a trained network of the family.

The steps follow the original pipelines (Sheridan et al. 2023, training scripts): raw in [0, 1],
augment, grow boundaries, descriptors, affinities, balance, raw * 2 - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrace.augment.resample import Coordinates, sample_linear, sample_nearest
from retrace.augment.warp import (
    bounding_box,
    change_grey_values,
    draw_warp,
    part_of_grid,
    voxel_grid,
)
from retrace.checkpoints.published import load_moments, load_published, read_published
from retrace.checkpoints.safetensors import load_model
from retrace.config.families import LSD
from retrace.config.lsd_network import FIRST_LOSS, LsdNetworkSettings
from retrace.cropping import centre_crop
from retrace.device import uses_bf16
from retrace.errors import ConfigError
from retrace.geometry import NmTriple, Triple, VoxelBox, triple
from retrace.losses.balance import balance_weights
from retrace.losses.lsd import LsdLoss
from retrace.networks import UNet, build_network
from retrace.planning.train_settings import TrainingDataset, TrainSettings
from retrace.planning.training_folders import PRETRAINED_LSDS
from retrace.targets.boundary import grow_boundary
from retrace.targets.lsd import LabelledSample, LsdTarget
from retrace.training.adam import make_optimizer, scheduled_rate
from retrace.training.lsd_boxes import Boxes, batch_boxes
from retrace.training.random_streams import batch_generator, seed_network
from retrace.training.sampler import PatchSampler, open_sampler, open_unless_too_small
from retrace.training.task import (
    Batch,
    Picture,
    PlainTask,
    TrainingInputs,
    TrainingSetup,
    on_device,
)
from retrace.training.validation_patches import (
    SEED,
    LabelledAffinities,
    PatchValidation,
    patch_validation,
)
from retrace.training.volumes import EXCLUDED, LABELLED, TrainingVolume

TARGETS: dict[str, LsdTarget] = LSD.load_all("targets")
LOSSES: dict[str, LsdLoss] = LSD.load_all("losses")
SECOND_PHASE = "second_phase"
"""Array without elements in batches that are not trained with the first loss."""


@dataclass(frozen=True)
class LsdFamilyTask(PlainTask):
    """Batches and losses of the LSD family's networks.

    `context`: the trained network whose descriptors an auto-context network reads.
    """

    network: LsdNetworkSettings
    sampler: PatchSampler
    boxes: Boxes
    voxel_size_nm: NmTriple
    seed: int
    device: torch.device
    context: UNet | None = None
    stays_inside: bool = False
    """Whether raw of a patch stays inside the image, where it fits."""

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
        loss = self.network.loss.in_force(iteration + 1)
        sample = self._sample(labels, codes, LOSSES[loss])
        batch = {"raw": raw[None, None] * 2 - 1, "labels": sample.output_labels}
        batch["labels_mask"] = sample.of_output(sample.labelled)
        for head in self.heads:
            batch |= TARGETS[head].arrays(sample, self.network)
        if loss != FIRST_LOSS:
            batch[SECOND_PHASE] = raw.new_empty(0)
        if self.network.dropout:
            batch["number"] = torch.tensor(number, device=self.device)
        return batch

    def begins_phase(self, iteration: int) -> bool:
        """True for the first iteration with MALIS, where the original creates a new Adam."""
        loss = self.network.loss
        return loss.in_force(iteration) != loss.in_force(iteration - 1)

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Outputs per head, (1, C, Z, Y, X); dropout depends on the seed and the number alone."""
        if self.network.dropout and module.training:
            seed_network(self.seed, batch)
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
        lsds = self._pretrained_lsds(raw).float() / 255
        if self.network.input_channels == lsds.shape[1]:
            return lsds
        return torch.cat((centre_crop(raw, self.network.input_shape), lsds), dim=1)

    @torch.no_grad()
    def _pretrained_lsds(self, raw: Tensor) -> Tensor:
        """Descriptors of the input's box, uint8 (1, 10, Z, Y, X), from raw as above."""
        assert self.context is not None
        lsds = (self.context(raw)["lsds"] * 255).to(torch.uint8)
        return centre_crop(lsds, self.network.input_shape)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss that the batch is trained with; their sum is the loss."""
        kind = self.network.loss.kind if SECOND_PHASE in batch else FIRST_LOSS
        return LOSSES[kind].terms(outputs, batch, self.network)

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Which heads have no voxel with a weight, or with MALIS no known affinity."""
        weights = {head: batch.get(f"{head}_weight", batch.get(f"{head}_known")) for head in terms}
        return {head: ~(w != 0).any() for head, w in weights.items() if w is not None}

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Raw, labels, mask, and per head target and prediction, at their places in the frame.

        Of auto-context networks also the descriptors that they read. Heads without an output have
        no prediction.
        """
        raw = ((batch["raw"][0, 0] + 1) * 127.5).round().to(torch.uint8)
        where = self.boxes.output.to_nm(self.voxel_size_nm).offset
        pictures = {
            "raw": Picture(raw, self.boxes.raw.to_nm(self.voxel_size_nm).offset),
            "labels": Picture(batch["labels"], where),
            "labels_mask": Picture(batch["labels_mask"].to(torch.uint8), where),
        }
        if self.context is not None:
            lsds = self._pretrained_lsds(batch["raw"])[0]
            middle = VoxelBox((0, 0, 0), self.boxes.frame).central(self.network.input_shape)
            pictures[PRETRAINED_LSDS] = Picture(lsds, middle.to_nm(self.voxel_size_nm).offset)
        shown = {f"gt_{head}": batch[head] for head in self.heads}
        shown |= {f"pred_{head}": output[0] for head, output in outputs.items()}
        for name, data in shown.items():
            scaled = (data.detach().float() * 255).to(torch.uint8)
            pictures[name] = Picture(scaled, where)
        return pictures

    def _augmented(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented raw of the input, labels (int64) and codes in their boxes, each (Z, Y, X)."""
        index = self.sampler.choose(rng)
        warp = draw_warp(rng, self.network.augment, self.boxes.frame)
        needs = warp.reach(self.boxes.labels), warp.reach(self.boxes.affinity_labels)
        raw_box = self.boxes.raw if self.stays_inside else None
        shift = self.sampler.place(rng, index, *needs, raw_box)
        volume = self.sampler.volumes[index]
        points = warp.source(voxel_grid(VoxelBox((0, 0, 0), self.boxes.frame), self.device))
        raw = self._read_raw(volume, part_of_grid(points, self.boxes.raw), shift)
        raw = change_grey_values(raw, rng, self.network.augment)
        points = part_of_grid(points, self.boxes.labels)
        return raw, *self._read_labels(volume, points, shift)

    def _read_raw(self, volume: TrainingVolume, points: Coordinates, shift: Triple) -> Tensor:
        box = bounding_box(points)
        block = self._to_device(volume.read_raw(box.shift(shift)))
        scale = 1 / 255 if block.dtype == torch.uint8 else 1.0
        return sample_linear(block.float() * scale, points, box.offset)

    def _read_labels(
        self, volume: TrainingVolume, points: Coordinates, shift: Triple
    ) -> tuple[Tensor, Tensor]:
        box = bounding_box(points)
        labels = self._to_device(volume.read_labels(box.shift(shift)))
        labels = sample_nearest(labels, points, box.offset).long()
        inner = self.boxes.affinity_labels.shift([-n for n in self.boxes.labels.offset])
        points = part_of_grid(points, inner)
        box = bounding_box(points)
        codes = self._to_device(volume.read_codes(box.shift(shift)))
        return labels, sample_nearest(codes.int(), points, box.offset)

    def _to_device(self, array: np.ndarray) -> Tensor:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _grown(self, labels: Tensor, codes: Tensor) -> Tensor:
        """Grows boundaries where the mask is known; further out, labels are unchanged."""
        settings = self.network.grow_boundary
        if settings:
            part = self.boxes.affinity_labels.slices(self.boxes.labels.offset)
            mask = codes == LABELLED
            labels[part] = grow_boundary(
                labels[part].clone(), mask, settings.steps, settings.only_xy
            )
        return labels

    def _sample(self, labels: Tensor, codes: Tensor, loss: LsdLoss) -> LabelledSample:
        """Labels and codes (Z, Y, X) in their boxes, for the targets."""
        return LabelledSample(
            labels=labels,
            labelled=codes == LABELLED,
            excluded=codes == EXCLUDED,
            label_box=self.boxes.labels,
            mask_box=self.boxes.affinity_labels,
            output=self.boxes.output,
            voxel_size_nm=self.voxel_size_nm,
            weigh_affinities=partial(_weighed, loss),
        )


def _weighed(loss: LsdLoss, target: Tensor, known: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What `loss` needs to know of affinities (C, Z, Y, X); weights that balance the classes."""
    if loss.affinity_inputs is not None:
        return loss.affinity_inputs(known, labels)
    return {"affs_weight": balance_weights(target, known)}


def build_lsd_task(
    network: LsdNetworkSettings,
    module: UNet,
    sampler: PatchSampler,
    voxel_size_nm: NmTriple,
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
    bf16 = uses_bf16(settings.precision, device)
    return on_device(module.requires_grad_(False).eval(), device, bf16=bf16)


def set_up_lsd(inputs: TrainingInputs, module: UNet) -> TrainingSetup:
    """Prepares a training of the LSD family."""
    settings, weights, device = inputs.settings, inputs.weights, inputs.device
    network, dataset = settings.network, settings.dataset
    assert isinstance(network, LsdNetworkSettings) and isinstance(dataset, TrainingDataset)
    if weights.init and inputs.is_new:
        load_model(weights.init, module, network)
    module = on_device(module, device, bf16=uses_bf16(settings.precision, device))
    module.dropout = network.dropout or 0.0
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
    optimizer = make_optimizer(
        module, lr=adam.lr, betas=adam.betas, eps=adam.eps, weight_decay=adam.weight_decay
    )
    begun = 0
    if weights.published and inputs.is_new:
        begun = load_published_weights(weights.published, module, optimizer, network.name)
    validation = validation_patches(inputs, module, task)
    rate = scheduled_rate(adam, settings.iterations)
    return TrainingSetup(
        task, optimizer, module, begun, adam.average, validation=validation, rate=rate
    )


def validation_patches(
    inputs: TrainingInputs, module: UNet, task: LsdFamilyTask
) -> PatchValidation | None:
    """What a training is measured on: patches without augmentation, with the first loss."""
    network, dataset = task.network, inputs.settings.dataset
    assert isinstance(dataset, TrainingDataset)
    if not dataset.validation:
        return None
    sampler = open_unless_too_small(
        lambda: open_sampler(
            dataset,
            dataset.validation,
            inputs.masks,
            padding_nm=network.label_padding_nm,
            min_masked=network.min_masked,
            field_of_view=module.valid_shape(),
            is_measured=True,
        )
    )
    if sampler is None:
        return None
    sampler = replace(sampler, min_masked=reachable(sampler, task.boxes.affinity_labels))
    plain = network.model_copy(update={"augment": ()})
    measured = replace(task, network=plain, sampler=sampler, seed=SEED, stays_inside=True)
    affinities = _labelled_affinities if "affs" in measured.heads else None
    return patch_validation(measured, inputs, affinities)


def reachable(sampler: PatchSampler, mask: VoxelBox) -> float:
    """`min_masked`, or half of what a patch can have of a volume thinner than itself."""
    fractions = [
        np.prod([min(1, n / m) for n, m in zip(volume.labelled.shape, mask.shape, strict=True)])
        for volume in sampler.volumes
    ]
    return min(sampler.min_masked, float(min(fractions)) / 2)


def _labelled_affinities(outputs: Mapping[str, Tensor], batch: Batch) -> LabelledAffinities:
    return LabelledAffinities(outputs["affs"][0], batch["labels"] * batch["labels_mask"])


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
