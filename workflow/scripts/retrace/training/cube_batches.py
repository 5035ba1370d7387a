"""Patches of volumes with voxel labels, for the networks of the family elektronn.

Source: ELEKTRONN, elektronn/training/CNNData.py. An image and its labels are cut at the same place,
warped, flipped and varied in grey; the labels are then cropped to the network's output and taken
at its stride. Differences: labels outside the labelled cube are no class, not class 0, and the last
place at which a patch fits is drawn too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from retrace.augment.backward_warp import (
    BackwardWarp,
    apply_warp,
    draw_section_warp,
    draw_volume_warp,
    required_source,
)
from retrace.augment.grey import draw_grey_change
from retrace.augment.simple import Simple, draw_orientation, draw_simple
from retrace.config.dataset_model import Entry, LazyLabels
from retrace.config.elektronn_network import EXAMPLE_WEIGHTS, ElektronnNetworkSettings
from retrace.errors import DataError
from retrace.formats.placement import check_place_in_image
from retrace.geometry import NmTriple, Triple, VoxelBox, nm_triple, triple
from retrace.networks.elektronn import ElektronnNetwork
from retrace.planning.train_settings import TrainingDataset
from retrace.storage.normalised import UNIT, NormalisedImage, normalise, open_normalised
from retrace.storage.volumes import open_source
from retrace.targets.classes import IGNORED, class_labels
from retrace.training.elektronn_pictures import prediction_picture, registration_picture
from retrace.training.random_streams import batch_generator
from retrace.training.sampler import (
    PatchSampler,
    TooSmallError,
    open_sampler,
    open_unless_too_small,
)
from retrace.training.task import Batch, Picture
from retrace.training.volumes import LABELLED, TrainingVolume, check_classes

MONITOR_STREAM = {"train": 1 << 61, "validation": 1 << 62}
"""Added to the seed for the patches that errors are measured on."""
SHOWN = (1, 256, 256)
"""Largest shape of a preview, voxels."""


@dataclass(frozen=True)
class Cubes:
    """The volumes of one split."""

    sampler: PatchSampler
    images: tuple[tuple[NormalisedImage, ...], ...]
    """Per volume the images of its channels, then its voxel weights if the network uses them."""
    lazy: tuple[Mapping[str, Tensor], ...] = ()
    """Per volume `labelled` and `absent` (K,); empty if no volume has lazy labels."""


@dataclass(frozen=True)
class CubeBatches:
    """Patches to train on, and patches to measure on."""

    network: ElektronnNetworkSettings
    module: ElektronnNetwork
    train: Cubes
    validation: Cubes | None
    voxel_size_nm: NmTriple
    seed: int
    device: torch.device

    @cached_property
    def patch(self) -> Triple:
        """Shape of the network's input, voxels."""
        return triple(self.network.input_shape)

    @cached_property
    def lead(self) -> Triple:
        """Voxels by which the input exceeds the output on the low side."""
        return triple([lost // 2 for lost in self.module.context])

    @cached_property
    def strides(self) -> Triple:
        """Voxels between two outputs of the network in training."""
        sizes = self.module.architecture.sizes
        assert sizes is not None
        return triple([axis[-1] for axis in sizes.strides])

    def batch(self, number: int, *, warp: bool | float) -> Batch:
        """`input` (N, C, Z, Y, X) in [0, 1], `target` (N, z, y, x) int64, below 0 without class."""
        count = self.network.batch_size
        return stacked(
            [
                self._example(
                    self.train, batch_generator(self.seed, number * count + i), float(warp), True
                )
                for i in range(count)
            ]
        )

    def monitor(self, split: str, count: int) -> Iterable[Batch]:
        """The same `count` patches of a split each time, flipped but not warped.

        Grey values vary in the train split only. No patches without a validation split.
        """
        cubes = self.train if split == "train" else self.validation
        for number in range(count if cubes else 0):
            assert cubes is not None
            rng = batch_generator(self.seed + MONITOR_STREAM[split], number)
            yield stacked([self._example(cubes, rng, 0.0, split == "train")])

    def draw(self, number: int, *, warp: bool | float, path: Path) -> None:
        """Draws the first patch of an iteration with the labels of all voxels of its output."""
        rng = batch_generator(self.seed, number * self.network.batch_size)
        _, image, labels = self._patch(self.train, rng, float(warp), True)
        shown = torch.full_like(labels, IGNORED)
        shown[self._inside] = labels[self._inside]
        registration_picture(image[0].float().cpu().numpy(), shown.cpu().numpy(), path)

    @property
    def _inside(self) -> tuple[slice, ...]:
        """The voxels of a patch between the first and the last output."""
        sides = zip(self.lead, self.patch, strict=True)
        return tuple(slice(lead, size - lead) for lead, size in sides)

    def _patch(
        self, cubes: Cubes, rng: np.random.Generator, warp: float, grey: bool
    ) -> tuple[int, Tensor, Tensor]:
        """Number of the volume; image (C, Z, Y, X) and labels (Z, Y, X) of a patch."""
        index = cubes.sampler.choose(rng)
        turned = self._orientation(rng, cubes.sampler.volumes[index])
        image, labels = self._cut(cubes, rng, index, turned, warp)
        if grey and self.network.grey_augment_channels:
            image = draw_grey_change(rng, self.network.grey_augment_channels).apply(image)
        return index, image, labels

    def _example(self, cubes: Cubes, rng: np.random.Generator, warp: float, grey: bool) -> Batch:
        index, image, labels = self._patch(cubes, rng, warp, grey)
        steps = tuple(slice(None, None, step) for step in self.strides)
        outputs = [part[self._inside][steps] for part in (labels, image[-1])]
        channels = self.network.input_channels
        example = {"input": image[:channels].float(), "target": outputs[0]}
        if len(image) > channels:
            example["example_weights"] = outputs[1].float()
        return {**example, **(cubes.lazy[index] if cubes.lazy else {})}

    def _orientation(self, rng: np.random.Generator, volume: TrainingVolume) -> Simple:
        """A random orientation; z is swapped only if the rotated patch fits into the volume."""
        if not self.network.flip_data:
            return draw_simple(rng, self.patch, mirror=[], transpose=[])
        fits = min(volume.visible.shape) >= max(self.patch)
        inner = [n - 2 * lost for n, lost in zip(self.patch, self.lead, strict=True)]
        fits = fits and min(volume.labelled.shape) >= max(inner)
        return draw_orientation(
            rng,
            self.patch,
            self.network.n_dim,
            anisotropic=self.network.anisotropic_data or not fits,
            upright_x=self.network.upright_x,
        )

    def _cut(
        self, cubes: Cubes, rng: np.random.Generator, index: int, turned: Simple, warp: float
    ) -> tuple[Tensor, Tensor]:
        """Image (C, Z, Y, X) and labels (Z, Y, X) of a patch, turned and warped.

        Volumes are warped first. Sections are turned first: they may be of any plane, and are
        warped within it.
        """
        volume, flat = cubes.sampler.volumes[index], self.network.n_dim == 2
        shape = self.patch if flat else turned.shape
        drawn, source = self._drawn_warp(rng, warp, shape, volume, turned)
        lead = triple([self.lead[axis] for axis in turned.order])
        sides = zip(turned.shape, lead, strict=True)
        core = VoxelBox((0, 0, 0), triple([n - 2 * c for n, c in sides]))
        around = triple([(s - n) // 2 for s, n in zip(source, core.shape, strict=True)])
        window = VoxelBox(triple([-n for n in around]), source)
        shift = cubes.sampler.place(rng, index, core, core, window)
        window = window.shift(shift)
        arrays = [image.read(window, volume.visible) for image in cubes.images[index]]
        image = torch.from_numpy(np.stack(arrays)).to(self.device)
        labels = self._classes(volume, window).to(self.device)
        if flat:
            image, labels = turned.apply(image), turned.apply(labels)
        if drawn is not None:
            # Warping fills with 0, which the shift by IGNORED turns into "no label".
            labels = apply_warp(labels - IGNORED, drawn, shape) + IGNORED
            image = apply_warp(image, drawn, shape)
        return (image, labels) if flat else (turned.apply(image), turned.apply(labels))

    def _drawn_warp(
        self,
        rng: np.random.Generator,
        fraction: float,
        shape: Triple,
        volume: TrainingVolume,
        turned: Simple,
    ) -> tuple[BackwardWarp | None, Triple]:
        """A random warp with probability `fraction`, if the volume is large enough for it.

        Also the voxels (z, y, x) of the volume that the patch is made of. `shape`: of the output
        of the warp.
        """
        if not fraction or rng.random() >= fraction:
            return None, turned.shape
        flat = self.network.n_dim == 2
        drawn = draw_section_warp(rng) if flat else draw_volume_warp(rng)
        source = required_source(drawn, shape)
        if flat:
            source = triple([source[axis] for axis in turned.order])
        fits = all(n <= have for n, have in zip(source, volume.visible.shape, strict=True))
        return (drawn, source) if fits else (None, turned.shape)

    def _classes(self, volume: TrainingVolume, box: VoxelBox) -> Tensor:
        """Classes (Z, Y, X) int64 of a box, IGNORED where unknown."""
        grown = self.network.grow_boundary
        ring = grown.steps if grown else 0
        around = box.grow((ring,) * 3)
        labels = torch.from_numpy(volume.read_labels(around).astype(np.int64))
        known = torch.from_numpy(volume.read_codes(around) == LABELLED)
        classes = class_labels(
            labels,
            known,
            are_classes=self.network.labels_are_classes,
            boundary_steps=ring,
            only_xy=bool(grown and grown.only_xy),
        )
        return classes[(slice(ring, -ring or None),) * 3]

    def pictures(self, probabilities: Tensor, batch: Batch) -> dict[str, Picture]:
        """Image, classes and probabilities of the first example, enlarged to the image's voxels.

        An output of stride s is shown as s voxels around the one that it is of.
        """
        sizes = zip(self.lead, self.strides, self.voxel_size_nm, strict=True)
        where = nm_triple([(lead - (stride - 1) / 2) * size for lead, stride, size in sizes])
        known = batch["target"][0] != IGNORED
        shown = {"raw": Picture(batch["input"][0, 0].float(), (0, 0, 0))}
        parts = {
            "gt_classes": batch["target"][0].clamp(min=0).to(torch.uint8),
            "pred_classes": (probabilities[0].clamp(0, 1) * 255).to(torch.uint8),
            "labels_mask": known.to(torch.uint8),
        }
        for name, data in parts.items():
            for axis, step in zip((-3, -2, -1), self.strides, strict=True):
                data = data.repeat_interleave(step, axis)
            shown[name] = Picture(data, where)
        return shown

    def preview(self, module: nn.Module, folder: Path, iteration: int) -> None:
        """Draws a section from the middle of a volume with the network's prediction."""
        cubes = self.validation or self.train
        volume = cubes.sampler.volumes[0]
        images = cubes.images[0][: self.network.input_channels]
        context = self.module.context
        room = [n - lost for n, lost in zip(volume.visible.shape, context, strict=True)]
        if min(room) < 1:
            return
        core = [min(n, most) for n, most in zip(room, SHOWN, strict=True)]
        shape = triple([n + lost for n, lost in zip(core, context, strict=True)])
        window = volume.visible.central(shape)
        x = torch.from_numpy(np.stack([image.read(window) for image in images]))
        (output,) = module(x[None].float().to(self.device)).values()
        image = x[0][tuple(slice(c, s - c) for c, s in zip(self.lead, shape, strict=True))]
        section = window.offset[0] + self.lead[0]
        name = f"{self.network.name}-pred-{volume.name}-z{section}"
        prediction_picture(
            image[0].numpy(),
            output[0, :, 0].float().cpu().numpy(),
            f"{volume.name}, section z = {section}, after {iteration} iterations",
            folder / f"{name}-{iteration:08d}.png",
        )


def stacked(examples: Sequence[Batch]) -> Batch:
    """Examples joined to one batch (N, ...)."""
    return {k: torch.stack([one[k] for one in examples]).contiguous() for k in examples[0]}


def open_cubes(
    network: ElektronnNetworkSettings,
    module: ElektronnNetwork,
    dataset: TrainingDataset,
    entries: Sequence[Entry],
    masks: Mapping[str, Path],
    device: torch.device,
    processes: int = 1,
) -> Cubes:
    """Opens and checks the volumes and images of a split.

    TooSmallError if a patch does not fit into a volume; DataError if labels are no classes of the
    network.
    """
    sampler = open_sampler(
        dataset,
        entries,
        masks,
        padding_nm=(0, 0, 0),
        min_masked=1 - network.example_ignore_threshold,
        field_of_view=triple(network.input_shape),
        processes=processes,
    )
    lost = zip(network.input_shape, module.context, strict=True)
    core = [n - c for n, c in lost]
    for volume in sampler.volumes:
        if any(n < c for n, c in zip(volume.labelled.shape, core, strict=True)):
            raise TooSmallError(
                f"volume {volume.name!r}: {list(volume.labelled.shape)} labelled voxels (z, y, x), "
                f"and the outputs of one patch of network {network.name!r} span {core}; lower "
                "`desired_input`"
            )
        if network.labels_are_classes:
            check_classes(volume, network)
        note_unused_labels(volume, network.name, triple(module.context))
    images = tuple(_images(dataset, volume, network) for volume in sampler.volumes)
    lazy_labels = [dataset.volumes[volume.name].lazy_labels for volume in sampler.volumes]
    lazy = (
        [lazy_classes(labels, network.n_lab or 0, device) for labels in lazy_labels]
        if any(lazy_labels)
        else ()
    )
    return Cubes(sampler, images, tuple(lazy))


def note_unused_labels(volume: TrainingVolume, network: str, context: Triple) -> None:
    """Prints how many labelled voxels no output reaches, because the image ends too early.

    `context`: voxels (z, y, x) that an input has more than its output.
    """
    outputs = volume.visible.grow([-(n // 2) for n in context])
    used = volume.labelled.intersect(outputs).size / volume.labelled.size
    if used < 1:
        print(
            f"[train] {volume.name}: {100 * (1 - used):.0f} % of the labelled voxels are not "
            f"trained on, because {network!r} sees {[n // 2 for n in context]} voxels (z, y, x) "
            "on each side of an output, and the image ends before; give a larger image, or take a "
            "network with a smaller field of view",
            flush=True,
        )


def lazy_classes(
    lazy_labels: LazyLabels | None, classes: int, device: torch.device
) -> dict[str, Tensor]:
    """Flags (K,) float of a volume's classes: `labelled`, and known to be `absent`.

    `lazy_labels`: the volume's setting of that name; without it all classes are labelled.
    """
    labelled = range(classes) if lazy_labels is None else lazy_labels.labelled or range(classes)
    absent = () if lazy_labels is None else lazy_labels.absent or ()
    flags = {name: torch.zeros(classes, device=device) for name in ("labelled", "absent")}
    flags["labelled"][list(labelled)] = 1
    flags["absent"][list(absent)] = 1
    return flags


def _images(
    dataset: TrainingDataset, volume: TrainingVolume, network: ElektronnNetworkSettings
) -> tuple[NormalisedImage, ...]:
    """The images of all channels, then the voxel weights if the network uses them.

    The first channel is read from memory if the sampler holds the volume there.
    """
    sources = dataset.volumes[volume.name]
    images = [normalise(volume.raw, UNIT)]
    for channel in network.inputs[1:]:
        images.append(open_normalised(sources.inputs[channel], UNIT))
    if network.use_example_weights:
        images.append(normalise(open_source(sources.inputs[EXAMPLE_WEIGHTS]), UNIT))
    for image in images[1:]:
        check_place_in_image(image.volume.place, images[0].volume.place)
        if not image.volume.box.contains(images[0].volume.box):
            raise DataError(
                f"{image.volume.name} does not cover the voxels of {images[0].volume.name}; "
                "all channels of a volume must"
            )
    return tuple(images)


def open_cube_batches(
    network: ElektronnNetworkSettings,
    dataset: TrainingDataset,
    seed: int,
    module: ElektronnNetwork,
    masks: Mapping[str, Path],
    device: torch.device,
    processes: int = 1,
) -> CubeBatches:
    """Opens the volumes of a training; its validation split is optional."""
    held_out = dataset.validation
    return CubeBatches(
        network=network,
        module=module,
        train=open_cubes(network, module, dataset, dataset.train, masks, device, processes),
        validation=open_unless_too_small(
            lambda: open_cubes(network, module, dataset, held_out, masks, device)
        )
        if held_out
        else None,
        voxel_size_nm=dataset.voxel_size_nm,
        seed=seed,
        device=device,
    )
