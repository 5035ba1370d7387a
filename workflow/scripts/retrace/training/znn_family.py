"""Training ZNN's networks: patches, targets, costs and test passes as in the original.

Source: seung-lab/znn-release, python/front_end (zsample, cost_fn, ztest). Differences are in
docs/reference/znn.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrace.checkpoints.safetensors import load_model
from retrace.checkpoints.znn import read_h5, seed_from
from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.formats.hdf5_tiff import H5_SUFFIXES
from retrace.geometry import Triple, VoxelBox, triple
from retrace.losses.znn_balance import Counts, class_weights, count, weigh
from retrace.losses.znn_costs import Cost, announced, cost, misclassified
from retrace.losses.znn_malis import pair_weights, true_segments, znn_malis_weights
from retrace.networks import ZnnNetwork
from retrace.networks.tuning import set_modes
from retrace.storage.normalised import Image, open_image
from retrace.storage.volumes import open_source
from retrace.targets.affinities import affinities
from retrace.targets.boundary import grow_boundary
from retrace.training.sampler import (
    LABELLED,
    Sampler,
    TooSmallError,
    TrainingVolume,
    TruthCount,
    batch_generator,
    check_classes,
    check_truth,
    labels_in_memory,
    network_seed,
    open_sampler,
    open_training_volume,
    unless_too_small,
)
from retrace.training.task import Batch, Made, Models, Picture, TakesNoOrders, on_device
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.znn.dataset import output_labels

TEST_STREAM = 1 << 62
"""What is added to the seed for the patches of test passes."""
TEST_CURVE = "test_curve.json"
SLAB = 16
"""Sections that are counted at once."""
PER_MAP = ("target", "mask", "weight")
"""What a batch has for each map of each output, (C, Z, Y, X)."""


@dataclass(frozen=True)
class Patches:
    """Volumes that patches are drawn from; per volume its images by input node."""

    sampler: Sampler
    images: tuple[tuple[Image, ...], ...]
    labels: tuple[tuple[TrainingVolume, ...], ...]
    """Per volume its labels by output; the first are those of `sampler`."""


@dataclass(frozen=True)
class ZnnTask(TakesNoOrders):
    """Batches and costs of the networks of the family znn."""

    network: Mapping[str, Any]
    module: ZnnNetwork
    train: Patches
    test: Patches | None
    voxel_size_nm: Triple
    seed: int
    device: torch.device
    dtype: torch.dtype
    _global: dict[str, list[list[Counts]]] = field(default_factory=dict)

    @property
    def observed(self) -> int:
        """cls, and with MALIS re, mc, me, are watched and not minimised."""
        return 4 if self.network["is_malis"] else 1

    @property
    def batch_size(self) -> int:
        """Patches of one iteration; ZNN has one."""
        return int(self.network.get("batch_size", 1))

    @cached_property
    def is_affinity(self) -> bool:
        return bool(self.network["out_type"] == "affinity")

    @cached_property
    def maps(self) -> list[int]:
        """Maps of each output, which lie behind each other in targets, masks and weights."""
        return [head["channels"] for head in self.network["heads"]]

    @cached_property
    def has_dropout(self) -> bool:
        return any(edge.type == "dropout" for edge in self.module.graph.edges.values())

    @cached_property
    def output(self) -> Triple:
        """Voxels that a patch gives."""
        return triple(self.network["train_outsz"])

    @torch.no_grad()
    def batch(self, number: int) -> Batch:
        """`input` (1, C, Z, Y, X), `target`, `mask`, `weight` (C, Z, Y, X), on the device."""
        batch = self._draw(self.train, batch_generator(self.seed, number), weighted=True)
        return {**batch, "number": torch.tensor(number, device=self.device)}

    def begins_phase(self, iteration: int) -> bool:
        """Never: one cost from the first iteration to the last."""
        return False

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What the network gives, {head: (1, C, Z, Y, X)}; what it drops depends on the number."""
        if self.has_dropout and self.module.training:
            torch.manual_seed(network_seed(self.seed, int(batch["number"])))
        outputs: dict[str, Tensor] = module(batch["input"])
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`err`, the mean cost of an element, with ZNN's gradient; then what is only watched.

        The gradient is divided by the voxels of the patch, not by its channels, mask or weights.
        """
        known = batch["mask"].sum().clamp(min=1)
        errors, wrong, watched = [], [], []
        for name, part in self._by_head(batch):
            output = outputs[name][0].to(self.dtype)
            paid = self._cost(output, part)
            weight = part["weight"]
            if self.network["is_malis"]:
                malis, seen = self._malis(paid, part["target"])
                weight = weight * malis
                watched.append(seen)
            gradient = paid.gradient * weight / math.prod(self.output)
            errors.append(announced(output, paid.error / known, gradient))
            wrong.append(misclassified(paid.probability, part["target"]))
        terms = {"err": torch.stack(errors).sum(), "cls": torch.cat(wrong).mean().detach()}
        return {**terms, **_means(watched)}

    def _by_head(self, batch: Batch) -> Iterator[tuple[str, Batch]]:
        """Each output's name, and its maps of what the batch has of all of them."""
        parts = {key: torch.split(batch[key], self.maps) for key in PER_MAP}
        for index, head in enumerate(self.network["heads"]):
            yield head["name"], {key: tensors[index] for key, tensors in parts.items()}

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Image, target, mask and prediction, the output in the middle of the image."""
        lead = [lost // 2 for lost in self.module.context]
        where = triple([n * size for n, size in zip(lead, self.voxel_size_nm, strict=True)])
        shown = {"raw": Picture(batch["input"][0, 0].float(), (0, 0, 0))}
        for head, part in self._by_head(batch):
            output = outputs[head][0].detach()
            probability = self._cost(output.to(self.dtype), part).probability
            for name, data in (("gt", part["target"]), ("pred", probability)):
                scaled = (data.clamp(0, 1) * 255).to(torch.uint8)
                shown[f"{name}_{head}"] = Picture(scaled, where)
        shown["labels_mask"] = Picture(batch["mask"][0].to(torch.uint8), where)
        return shown

    @torch.no_grad()
    def after_step(self, module: nn.Module, iteration: int, work: Path) -> None:
        """Every `num_iter_per_test` iterations a test pass, kept in `work`."""
        if self.test is None or iteration % self.network["num_iter_per_test"]:
            return
        rng = batch_generator(self.seed + TEST_STREAM, iteration)
        module.eval()
        found = [self._test_patch(module, rng) for _ in range(self.network["test_num"])]
        module.train()
        err, cls = np.mean(found, axis=0)
        # What a run wrote that was killed before it saved its state comes again.
        rows = [row for row in read_test_curve(work) if row["it"] < iteration]
        rows.append({"it": iteration, "err": float(err), "cls": float(cls)})
        atomic_write(work / TEST_CURVE, json.dumps(rows) + "\n")

    def _test_patch(self, module: nn.Module, rng: np.random.Generator) -> tuple[float, float]:
        assert self.test is not None
        batch = self._draw(self.test, rng, weighted=False)
        raw = self.module.raw_outputs(batch["input"])
        error, wrong = torch.zeros((), dtype=self.dtype, device=self.device), []
        for name, part in self._by_head(batch):
            output = raw[self.module.output_nodes[name]][0]
            output = output.flip(0) if self.is_affinity else output
            paid = self._cost(output.to(self.dtype), part)
            error = error + paid.error
            wrong.append(misclassified(paid.probability, part["target"]))
        mean = error / batch["mask"].sum().clamp(min=1)
        return float(mean), float(torch.cat(wrong).mean())

    def _cost(self, output: Tensor, batch: Batch) -> Cost:
        return cost(self.network["cost_fn"], output, batch["target"], batch["mask"])

    def _malis(self, paid: Cost, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """MALIS weights, and re, mc, me: Rand error, and weighted shares of wrong and of cost."""
        neighborhood = self.network["neighborhood"]
        predicted = paid.probability.detach().double().cpu().numpy()
        truth = target.double().cpu().numpy()
        norm, constrained = self.network["malis_norm_type"], self.network["is_constrained_malis"]
        weights = znn_malis_weights(predicted, truth, neighborhood, norm, constrained)
        labels = true_segments(truth, neighborhood)
        counts = pair_weights(predicted, labels, neighborhood).counts
        pairs = (labels > 0).sum() * ((labels > 0).sum() - 1) / 2
        total = weights.sum() or 1.0
        wrong = ((predicted > 0.5) != (truth > 0.5)) * weights
        likely = np.clip(np.where(truth > 0.5, predicted, 1 - predicted), 1e-12, 1)
        watched = {
            "re": (counts["FP"] + counts["FN"]) / max(pairs, 1),
            "mc": wrong.sum() / total,
            "me": (-np.log(likely) * weights).sum() / total,
        }
        as_terms = {
            k: torch.tensor(v, dtype=self.dtype).to(self.device) for k, v in watched.items()
        }
        return torch.from_numpy(weights).to(self.device, self.dtype), as_terms

    def _draw(self, patches: Patches, rng: np.random.Generator, *, weighted: bool) -> Batch:
        """One patch, augmented, with its target."""
        index = patches.sampler.choose(rng)
        volume, images = patches.sampler.volumes[index], patches.images[index]
        extra = int(self.is_affinity)
        ring = (self.network["grow_boundary"] or {}).get("steps", 0)
        box = VoxelBox((0, 0, 0), triple([n + extra for n in self.output]))
        window = self._window(box)
        middle = VoxelBox(triple([(n - 1) // 2 for n in box.shape]), (1, 1, 1))
        seen = window if self.network["predict_padding"] == "valid" else None
        shift = patches.sampler.place(rng, index, box, middle, seen)
        coins = rng.random(4) < 0.5 if self.network["is_data_aug"] else np.zeros(4, bool)
        arrays = [image.read(window.shift(shift), volume.visible) for image in images]
        parts = []
        for truth, maps in zip(patches.labels[index], self.maps, strict=True):
            labels = _turned(truth.read_labels(box.shift(shift).grow((ring,) * 3)), coins)
            known = _turned(truth.read_codes(box.shift(shift)) == LABELLED, coins)
            is_known = torch.from_numpy(known.copy())
            grown = self._grown(torch.from_numpy(labels.copy()), is_known, ring)
            parts.append(self._targets(grown, is_known, maps))
        batch = {key: torch.cat([part[key] for part in parts]) for key in ("target", "mask")}
        stacked = np.stack([_turned(array, coins)[(slice(extra, None),) * 3] for array in arrays])
        batch["weight"] = self._weights(batch, index) if weighted else batch["mask"]
        batch["input"] = torch.from_numpy(stacked)[None]
        return {
            name: tensor.to(self.device, self.dtype).contiguous() for name, tensor in batch.items()
        }

    def _window(self, box: VoxelBox) -> VoxelBox:
        lead = triple([-(lost // 2) for lost in self.module.context])
        sides = zip(box.shape, self.module.context, strict=True)
        return VoxelBox(box.offset, triple([n + lost for n, lost in sides])).shift(lead)

    def _grown(self, labels: Tensor, known: Tensor, ring: int) -> Tensor:
        settings = self.network["grow_boundary"]
        if not settings:
            return labels
        around = nn.functional.pad(known[None].float(), (ring,) * 6, mode="replicate")[0] > 0
        grown = grow_boundary(labels, around, settings["steps"], settings["only_xy"])
        return grown[(slice(ring, -ring),) * 3]

    def _targets(self, labels: Tensor, known: Tensor, maps: int) -> Batch:
        """`target` and `mask` (C, Z, Y, X) of one output."""
        if not self.is_affinity:
            if self.network["out_type"] == "semantic":
                target = torch.stack([labels == number for number in range(maps)]).float()
            else:
                inside = (labels > 0).float()
                target = torch.stack((inside, 1 - inside))[:maps]
            return {"target": target, "mask": known.expand_as(target).float()}
        neighborhood = self.network["neighborhood"]
        target = affinities(labels, neighborhood)[:, 1:, 1:, 1:]
        either = [known | _lower(known, axis) for axis in range(3)]
        return {"target": target, "mask": torch.stack(either)[:, 1:, 1:, 1:].float()}

    def _weights(self, batch: Batch, index: int) -> Tensor:
        """Rebalancing weights (C, Z, Y, X) of all outputs."""
        if self.network["rebalance_mode"] == "none":
            return torch.ones_like(batch["target"])
        whole = self._counts(index) if self.network["rebalance_mode"] == "global" else None
        parts = {key: torch.split(batch[key], self.maps) for key in ("target", "mask")}
        each = []
        for number, (target, mask) in enumerate(zip(*parts.values(), strict=True)):
            counts = whole[number] if whole else _count_maps(target, mask)
            each.append(self._weigh(target, counts))
        return torch.cat(each)

    def _weigh(self, target: Tensor, counts: Sequence[Counts]) -> Tensor:
        """Weights of one output; affinities are balanced each direction for itself."""
        mode = self.network["rebalance_mode"]
        if self.is_affinity:
            pairs = zip(target, counts, strict=True)
            return torch.stack([weigh(t > 0.5, c.shares(), self.dtype) for t, c in pairs])
        if self.network["out_type"] == "semantic":
            told = class_weights([c.positive for c in counts], mode)
            scale = torch.tensor(told, dtype=self.dtype)[:, None, None, None]
            return (target * scale).sum(0, keepdim=True).expand_as(target)
        first = counts[0]
        both = first.global_boundary() if mode == "global" else first.shares()
        return weigh(target[0] > 0.5, both, self.dtype).expand_as(target)

    def _counts(self, index: int) -> list[list[Counts]]:
        """Voxels above 0 and at 0 in a whole training volume, per output and map."""
        key = f"{index}"
        if key not in self._global:
            pairs = zip(self.train.labels[index], self.maps, strict=True)
            self._global[key] = [self._count_volume(truth, maps) for truth, maps in pairs]
        return self._global[key]

    def _count_volume(self, volume: TrainingVolume, maps: int) -> list[Counts]:
        ring = (self.network["grow_boundary"] or {}).get("steps", 0)
        extra = int(self.is_affinity)
        low = triple([-extra] * 3)
        found: list[list[Counts]] = []
        box = volume.labelled
        for z in range(box.offset[0], box.end[0], SLAB):
            depth = min(SLAB, box.end[0] - z)
            part = VoxelBox((z, *box.offset[1:]), (depth, *box.shape[1:]))
            part = VoxelBox(part.shift(low).offset, triple([n + extra for n in part.shape]))
            labels = torch.from_numpy(volume.read_labels(part.grow((ring,) * 3)))
            known = torch.from_numpy(volume.read_codes(part) == LABELLED)
            batch = self._targets(self._grown(labels, known, ring), known, maps)
            found.append(_count_maps(batch["target"], batch["mask"]))
        return [
            Counts(sum(c.positive for c in channel), sum(c.zero for c in channel))
            for channel in zip(*found, strict=True)
        ]


def read_test_curve(work: Path) -> list[dict[str, float]]:
    """Rows {it, err, cls} of the test passes of a training, from the first on."""
    path = work / TEST_CURVE
    rows: list[dict[str, float]] = json.loads(path.read_text()) if path.is_file() else []
    return rows


def _count_maps(target: Tensor, mask: Tensor) -> list[Counts]:
    """Voxels above 0 and at 0 of each map, both (C, Z, Y, X)."""
    return [count(t > 0.5, m) for t, m in zip(target, mask, strict=True)]


def _means(watched: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means over all outputs of what is watched of each."""
    names = watched[0] if watched else {}
    return {name: torch.stack([seen[name] for seen in watched]).mean() for name in names}


def _turned(values: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """Flipped along z, y, x and with y and x exchanged, each as its coin says."""
    for axis in range(3):
        if coins[axis]:
            values = np.flip(values, axis)
    return values.transpose(0, 2, 1) if coins[3] else values


def _lower(known: Tensor, axis: int) -> Tensor:
    """Whether the neighbour at the lower index is known; False where there is none."""
    shifted = torch.zeros_like(known)
    size = known.shape[axis] - 1
    shifted.narrow(axis, 1, size).copy_(known.narrow(axis, 0, size))
    return shifted


def open_patches(
    network: Mapping[str, Any],
    module: ZnnNetwork,
    dataset: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    masks: Mapping[str, Path],
    processes: int = 1,
) -> Patches:
    """Volumes and images of entries, checked; DataError where a patch does not fit into one."""
    valid = network["predict_padding"] == "valid"
    extra = int(network["out_type"] == "affinity")
    output = [n + extra for n in network["train_outsz"]]
    least = module.valid_shape(output) if valid else (1, 1, 1)
    sampler = open_sampler(
        {**dataset, "train": list(entries)},
        masks,
        padding_nm=(0, 0, 0),
        min_masked=1.0,
        field_of_view=least,
        processes=processes,
    )
    for volume in sampler.volumes:
        if any(have < need for have, need in zip(volume.labelled.shape, output, strict=True)):
            raise TooSmallError(
                f"volume {volume.name!r}: train_outsz {network['train_outsz']} of network "
                f"{network['name']!r} is larger than the labels, {list(volume.labelled.shape)} "
                "voxels; set a smaller train_outsz, or give a larger volume"
            )
        if network["out_type"] == "semantic":
            check_classes(volume, network["name"], network["n_lab"])
    opened = {name: _images(network, dataset, name) for name in {v.name for v in sampler.volumes}}
    images = tuple(opened[v.name] for v in sampler.volumes)
    pairs = zip(entries, sampler.volumes, strict=True)
    return Patches(sampler, images, tuple(_labels(network, dataset, *pair) for pair in pairs))


def _labels(
    network: Mapping[str, Any],
    dataset: Mapping[str, Any],
    entry: Mapping[str, Any],
    first: TrainingVolume,
) -> tuple[TrainingVolume, ...]:
    """The labels of each output of one entry; `first`: those of its `labels`."""
    if len(network["heads"]) == 1:
        return (first,)
    sources = dataset["volumes"][entry["volume"]]
    found = []
    for head in network["heads"]:
        labels = output_labels(sources, network, head["node"])
        mask = sources.get("outputs_mask", {}).get(head["node"])
        if labels == sources["labels"]:
            found.append(first)
            continue
        others = {entry["volume"]: {**sources, "labels": labels}}
        opened = open_training_volume({**dataset, "volumes": others}, entry, None)
        opened = replace(opened, mask=open_source(mask) if mask else None)
        check_truth(opened, TruthCount(opened))
        if network["out_type"] == "semantic":
            check_classes(opened, network["name"], network["n_lab"])
        found.append(labels_in_memory(opened))
    return tuple(found)


def _test_patches(
    network: Mapping[str, Any],
    module: ZnnNetwork,
    dataset: Mapping[str, Any],
    masks: Mapping[str, Path],
) -> Patches | None:
    """Patches of the validation entries; None where there are none, or none fits in."""
    entries = dataset.get("validation") or []
    if not entries:
        return None
    return unless_too_small(lambda: open_patches(network, module, dataset, entries, masks))


def _images(network: Mapping[str, Any], dataset: Mapping[str, Any], name: str) -> tuple[Image, ...]:
    sources = dataset["volumes"][name]
    images = [open_image(sources["raw"])]
    for node in network["inputs"][1:]:
        images.append(open_image(sources["inputs"][node]))
        if images[-1].volume.box != images[0].volume.box:
            raise DataError(
                f"{images[-1].volume.name} does not lie on the voxels of {images[0].volume.name}; "
                "all images of a volume must"
            )
    return tuple(images)


def make_znn_task(
    settings: Mapping[str, Any],
    module: ZnnNetwork,
    masks: Mapping[str, Path],
    device: torch.device,
    processes: int = 1,
) -> ZnnTask:
    """The task of a training's settings, its volumes opened."""
    network, dataset = settings["network"], settings["dataset"]
    return ZnnTask(
        network=network,
        module=module,
        train=open_patches(network, module, dataset, dataset["train"], masks, processes),
        test=_test_patches(network, module, dataset, masks),
        voxel_size_nm=triple(dataset["voxel_size_nm"]),
        seed=settings["seed"],
        device=device,
        dtype=getattr(torch, network["dtype"]),
    )


def make_znn(
    settings: Mapping[str, Any],
    masks: Mapping[str, Path],
    models: Models,
    is_new: bool,
    *,
    module: ZnnNetwork,
    device: torch.device,
    processes: int,
) -> Made:
    """A training of ZNN's networks; its `init` may be a model or an h5 of ZNN (seeding)."""
    network = settings["network"]
    module = on_device(module.to(getattr(torch, network["dtype"])), device)
    optimizer = ZnnOptimizer(module, network)
    optimizer.register_step_post_hook(lambda *_: module.tie())
    set_modes(module, network, device, training=True)
    if models.init and is_new:
        seed(models.init, module, optimizer, network)
    task = make_znn_task(settings, module, masks, device, processes)
    return task, optimizer, module, 0


def seed(
    path: Path, module: ZnnNetwork, optimizer: ZnnOptimizer, network: Mapping[str, Any]
) -> None:
    """Begins from a trained network: layer by layer from an h5, or a whole model."""
    if path.suffix not in H5_SUFFIXES:
        load_model(path, module, network)
        return
    for line in seed_from(read_h5(path), module, optimizer.velocity):
        print(f"[train] {line}", flush=True)
