"""Training of ZNN's networks: costs, what is monitored, and test passes, as in the original.

Source: seung-lab/znn-release, python/front_end (cost_fn, ztest). Differences are listed in
docs/reference/znn.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrace.checkpoints.safetensors import load_model
from retrace.checkpoints.znn import read_h5, seed_from
from retrace.config.families import ZNN
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.formats.folder_kinds import H5_SUFFIXES
from retrace.geometry import NmTriple, Triple, in_nm, triple
from retrace.losses.znn_balance import ClassCounts
from retrace.losses.znn_costs import ZnnCost, misclassified, with_gradient
from retrace.losses.znn_malis import pair_weights, true_segments, znn_malis_weights
from retrace.networks import ZnnNetwork
from retrace.networks.tuning import set_convolution_modes
from retrace.networks.znn import is_affinities
from retrace.planning.train_settings import TrainingDataset
from retrace.training.random_streams import batch_generator, seed_network
from retrace.training.state import TrainingProgress
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
    identity_of,
    patch_validation,
)
from retrace.training.znn_curve import add_test_pass, znn_learning_curve
from retrace.training.znn_files import NetFiles, check_net_files
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.training.znn_patches import (
    PatchCutter,
    ZnnVolumes,
    open_test_volumes,
    open_znn_volumes,
)
from retrace.training.znn_resumption import resume
from retrace.training.znn_targets import ZnnTargets
from retrace.znn.net_h5 import stored_iteration

COSTS = ZNN.load_all("losses")
"""Functions (output, target, mask) -> ZnnCost, by `cost_fn`."""
TEST_STREAM = 1 << 62
"""Added to the seed for the patches of test passes."""
PER_CHANNEL = ("target", "mask", "weight")
"""What a batch has for each channel of each output, (C, Z, Y, X)."""


@dataclass(frozen=True)
class ZnnTask(PlainTask):
    """Batches and costs of the networks of the family znn."""

    network: ZnnNetworkSettings
    module: ZnnNetwork
    train: ZnnVolumes
    test: ZnnVolumes | None
    voxel_size_nm: NmTriple
    seed: int
    device: torch.device
    dtype: torch.dtype
    measured_on: str = ""
    """Identity of the validation data."""
    _volume_counts: dict[int, list[list[ClassCounts]]] = field(default_factory=dict)

    @property
    def observed(self) -> int:
        """cls, and with MALIS re, mc, me, are monitored, not minimised."""
        return 4 if self.network.is_malis else 1

    @property
    def batch_size(self) -> int:
        """Patches per iteration; 1 in ZNN."""
        return self.network.batch_size

    @cached_property
    def has_dropout(self) -> bool:
        """Whether the network drops units while it trains."""
        return any(edge.type == "dropout" for edge in self.module.graph.edges.values())

    @cached_property
    def output(self) -> Triple:
        """Shape of a patch's output, voxels."""
        return triple(self.network.train_outsz)

    @cached_property
    def targets(self) -> ZnnTargets:
        """Turns labels into targets, masks and weights."""
        return ZnnTargets(self.network, self.dtype)

    @cached_property
    def cutter(self) -> PatchCutter:
        """Cuts patches of the network's size."""
        return PatchCutter(self.network, self.targets, self.module.context)

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """`input` (1, C, Z, Y, X), `target`, `mask`, `weight` (C, Z, Y, X), on the device."""
        index, batch = self.cutter.cut(self.train, batch_generator(self.seed, number))
        batch["weight"] = self.targets.weights(batch, self._counts(index))
        return {**self._to_device(batch), "number": torch.tensor(number, device=self.device)}

    def _counts(self, index: int) -> list[list[ClassCounts]] | None:
        """ClassCounts of a whole training volume by output and channel, for global rebalancing."""
        if self.network.rebalance_mode != "global":
            return None
        if index not in self._volume_counts:
            pairs = zip(self.train.labels[index], self.targets.channels, strict=True)
            self._volume_counts[index] = [self.targets.count_volume(*pair) for pair in pairs]
        return self._volume_counts[index]

    def _to_device(self, batch: Batch) -> Batch:
        return {name: t.to(self.device, self.dtype).contiguous() for name, t in batch.items()}

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Outputs by head, (1, C, Z, Y, X); dropout depends on the seed and the number alone."""
        if self.has_dropout and self.module.training:
            seed_network(self.seed, batch)
        outputs: dict[str, Tensor] = module(batch["input"])
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`err`, the mean cost of an element, with ZNN's gradient; then the monitored terms.

        As in ZNN, the gradient is divided by the voxels of the patch, regardless of channels, mask
        and weights.
        """
        known = batch["mask"].sum().clamp(min=1)
        errors, wrong, monitored = [], [], []
        for name, head in self._by_head(batch):
            output = outputs[name][0].to(self.dtype)
            costs = self._cost(output, head)
            weight = head["weight"]
            if self.network.is_malis:
                malis, terms = self._malis(costs, head["target"])
                weight = weight * malis
                monitored.append(terms)
            gradient = costs.gradient * weight / math.prod(self.output)
            errors.append(with_gradient(output, costs.error / known, gradient))
            wrong.append(misclassified(costs.probability, head["target"]))
        terms = {"err": torch.stack(errors).sum(), "cls": torch.cat(wrong).mean().detach()}
        return {**terms, **_means(monitored)}

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """All terms, if the patch has no voxel in the mask."""
        return dict.fromkeys(terms, ~(batch["mask"] != 0).any())

    def _by_head(self, batch: Batch) -> Iterator[tuple[str, Batch]]:
        """Each output's name, and its channels of the batch."""
        parts = {key: torch.split(batch[key], self.targets.channels) for key in PER_CHANNEL}
        for index, head in enumerate(self.network.heads):
            yield head.name, {key: tensors[index] for key, tensors in parts.items()}

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Image, target, mask and prediction; the output is centred in the image."""
        lead = [lost // 2 for lost in self.module.context]
        offset_nm = in_nm(lead, self.voxel_size_nm)
        pictures = {"raw": Picture(batch["input"][0, 0].float(), (0, 0, 0))}
        for head, part in self._by_head(batch):
            output = outputs[head][0].detach()
            probability = self._cost(output.to(self.dtype), part).probability
            for name, data in (("gt", part["target"]), ("pred", probability)):
                scaled = (data.clamp(0, 1) * 255).to(torch.uint8)
                pictures[f"{name}_{head}"] = Picture(scaled, offset_nm)
        pictures["labels_mask"] = Picture(batch["mask"][0].to(torch.uint8), offset_nm)
        return pictures

    @torch.no_grad()
    def after_step(self, module: nn.Module, iteration: int, losses: Tensor, work: Path) -> None:
        """Runs a test pass every `num_iter_per_test` iterations and records it in `work`."""
        if self.test is None or iteration % self.network.num_iter_per_test:
            return
        rng = batch_generator(self.seed + TEST_STREAM, iteration)
        module.eval()
        passes = [self._test_patch(module, rng) for _ in range(self.network.test_num)]
        module.train()
        compared = [row for row in passes if row is not None]
        error, wrong = np.mean(compared, axis=0) if compared else (None, None)
        add_test_pass(work, iteration, error, wrong, self.measured_on)

    def _test_patch(
        self, module: nn.Module, rng: np.random.Generator
    ) -> tuple[float, float] | None:
        """Mean cost and classification error of one patch of the validation split.

        None for a patch without a voxel in the mask.
        """
        assert self.test is not None
        _, batch = self.cutter.cut(self.test, rng)
        if not batch["mask"].any():
            return None
        batch = self._to_device({**batch, "weight": batch["mask"]})
        raw = self.module.raw_outputs(batch["input"])
        error, wrong = torch.zeros((), dtype=self.dtype, device=self.device), []
        for name, head in self._by_head(batch):
            output = raw[self.module.output_nodes[name]][0]
            output = output.flip(0) if self.targets.is_affinity else output
            costs = self._cost(output.to(self.dtype), head)
            error = error + costs.error
            wrong.append(misclassified(costs.probability, head["target"]))
        mean = error / batch["mask"].sum()
        return float(mean), float(torch.cat(wrong).mean())

    def history(self, progress: TrainingProgress, work: Path) -> dict[str, Any]:
        """ZNN's learning curve."""
        every = self.network.num_iter_per_show
        return {"learning_curve": znn_learning_curve(progress, every, work, self.measured_on)}

    def _cost(self, output: Tensor, head: Batch) -> ZnnCost:
        cost: ZnnCost = COSTS[self.network.cost_fn](output, head["target"], head["mask"])
        return cost

    def _malis(self, costs: ZnnCost, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """MALIS weights (C, Z, Y, X), and the monitored terms re, mc, me.

        re: Rand error; mc and me: weighted fraction of wrong voxels, and weighted cross entropy.
        """
        neighborhood = self.network.neighborhood
        predicted = costs.probability.detach().double().cpu().numpy()
        truth = target.double().cpu().numpy()
        norm, constrained = self.network.malis_norm_type, self.network.is_constrained_malis
        weights = znn_malis_weights(predicted, truth, neighborhood, norm, constrained)
        labels = true_segments(truth, neighborhood)
        counts = pair_weights(predicted, labels, neighborhood).counts
        pairs = (labels > 0).sum() * ((labels > 0).sum() - 1) / 2
        total = weights.sum() or 1.0
        wrong = ((predicted > 0.5) != (truth > 0.5)) * weights
        likelihood = np.clip(np.where(truth > 0.5, predicted, 1 - predicted), 1e-12, 1)
        terms = {
            "re": (counts["FP"] + counts["FN"]) / max(pairs, 1),
            "mc": wrong.sum() / total,
            "me": (-np.log(likelihood) * weights).sum() / total,
        }
        tensors = {k: torch.tensor(v, dtype=self.dtype).to(self.device) for k, v in terms.items()}
        return torch.from_numpy(weights).to(self.device, self.dtype), tensors


def _means(terms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means over all outputs of their terms."""
    names = terms[0] if terms else {}
    return {name: torch.stack([each[name] for each in terms]).mean() for name in names}


def set_up_znn(inputs: TrainingInputs, module: ZnnNetwork) -> TrainingSetup:
    """Prepares a training of ZNN's networks; `init` may be a model or an h5 of ZNN (seeding)."""
    settings, device = inputs.settings, inputs.device
    network, dataset = settings.network, settings.dataset
    assert isinstance(network, ZnnNetworkSettings) and isinstance(dataset, TrainingDataset)
    if inputs.weights.resumed is None:  # otherwise it continues the networks that are there
        check_net_files(network, inputs.written_files)
    dtype = getattr(torch, network.dtype)
    module = on_device(module.to(dtype), device)
    optimizer = ZnnOptimizer(
        module,
        eta=network.eta,
        momentum=network.momentum,
        weight_decay=network.weight_decay,
        anneal_factor=network.anneal_factor,
        anneal_every=network.num_iter_per_annealing,
    )
    optimizer.register_step_post_hook(lambda *_: module.tie())
    mode = network.train_conv_mode or "direct"
    set_convolution_modes(module, mode, network.input_shape, device, training=True)
    begun = _load_weights(inputs, module, optimizer, network)
    task = ZnnTask(
        network=network,
        module=module,
        train=open_znn_volumes(
            network, module, dataset, dataset.train, inputs.masks, inputs.processes
        ),
        test=open_test_volumes(network, module, dataset, inputs.masks),
        voxel_size_nm=dataset.voxel_size_nm,
        seed=settings.seed,
        device=device,
        dtype=dtype,
        measured_on=identity_of(inputs),
    )
    files = _net_files(inputs, module, optimizer, network)
    validation = validation_patches(task, inputs)
    return TrainingSetup(task, optimizer, module, begun, on_save=files, validation=validation)


class MeasuredZnnTask(ZnnTask):
    """Losses of a network in evaluation, whose outputs are otherwise probabilities."""

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Outputs by head, (1, C, Z, Y, X), as while it is trained."""
        assert isinstance(module, ZnnNetwork)
        raw = module.raw_outputs(batch["input"])
        outputs = {head: raw[node] for head, node in module.output_nodes.items()}
        return {head: y.flip(1) if is_affinities(head) else y for head, y in outputs.items()}

    def labelled_affinities(
        self, outputs: Mapping[str, Tensor], batch: Batch
    ) -> LabelledAffinities:
        """The predicted affinities, and the objects of those that are true, where they count."""
        ((name, head),) = self._by_head(batch)
        predicted = self._cost(outputs[name][0].to(self.dtype), head).probability
        truth = (head["target"] * head["mask"]).double().cpu().numpy()
        labels = true_segments(truth, self.network.neighborhood)
        return LabelledAffinities(predicted.clamp(0, 1), torch.from_numpy(labels))


def validation_patches(task: ZnnTask, inputs: TrainingInputs) -> PatchValidation | None:
    """What a training is measured on: patches as they are; None without a validation split."""
    if task.test is None:
        return None
    plain = task.network.model_copy(update={"is_data_aug": False})
    measured = MeasuredZnnTask(
        plain, task.module, task.test, None, task.voxel_size_nm, SEED, task.device, task.dtype
    )
    segments = task.network.out_type == "affinity" and len(task.network.heads) == 1
    affinities = measured.labelled_affinities if segments else None
    return patch_validation(measured, inputs, affinities)


def _load_weights(
    inputs: TrainingInputs,
    module: ZnnNetwork,
    optimizer: ZnnOptimizer,
    network: ZnnNetworkSettings,
) -> int:
    """Loads what a new training begins with; iterations that were done for it already."""
    weights = inputs.weights
    if weights.resumed and inputs.is_new:
        return resume(weights.resumed, module, optimizer, network, inputs.work)
    if weights.init and inputs.is_new:
        load_initial_znn(weights.init, module, optimizer, network)
    return 0


def _net_files(
    inputs: TrainingInputs,
    module: ZnnNetwork,
    optimizer: ZnnOptimizer,
    network: ZnnNetworkSettings,
) -> NetFiles | None:
    """What writes ZNN's own files of the network, if the settings ask for them."""
    if network.net_files is None:
        return None
    continued = inputs.weights.resumed
    return NetFiles(
        network,
        network.net_files,
        module,
        optimizer,
        inputs.work,
        inputs.written_files,
        inputs.settings.iterations,
        stored_iteration(continued) if continued else None,
        identity_of(inputs),
    )


def load_initial_znn(
    path: Path, module: ZnnNetwork, optimizer: ZnnOptimizer, network: ZnnNetworkSettings
) -> None:
    """Loads a whole model, or those layers of an h5 of ZNN that have the same name and shape."""
    if path.suffix not in H5_SUFFIXES:
        load_model(path, module, network)
        return
    for line in seed_from(read_h5(path), module, optimizer.velocity):
        print(f"[train] {line}", flush=True)
