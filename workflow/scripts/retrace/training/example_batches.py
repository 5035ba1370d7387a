"""Batches of single examples, as in ELEKTRONN's MNISTData, but reproducible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrace.augment.backward_warp import apply_warp, draw_digits_warp
from retrace.augment.single_images import distort_images, random_crop
from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.cropping import centre_crop
from retrace.errors import ConfigError, DataError
from retrace.formats.examples import ExampleSet, open_examples
from retrace.formats.examples_source import ExamplesSource
from retrace.geometry import triple
from retrace.planning.train_settings import TrainingExamples
from retrace.training.elektronn_pictures import examples_picture
from retrace.training.random_streams import batch_generator
from retrace.training.task import Batch

SHIFT = 2
"""Pixels by which `shift_augment` crops each axis."""
AT_ONCE = 1000
"""Batch size without training."""
EPOCHS = 1 << 61
"""Added to the seed for the order of the examples."""


@dataclass(frozen=True)
class ExampleBatches:
    """Batches of examples for a network of mode img-scalar or vect-scalar.

    Every epoch has its own order. The examples of an iteration, their warps and shifts depend only
    on the seed and the iteration. The mean grey value of the training images is subtracted, so that
    the 0 that fills borders is that value.
    """

    network: ElektronnNetworkSettings
    train: ExampleSet
    validation: ExampleSet
    seed: int
    device: torch.device
    given_mean: float | None = None
    """The mean of a finished training whose model is applied."""
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def mean(self) -> float:
        """Mean of all training values."""
        if self.given_mean is not None:
            return self.given_mean
        return float(self.train.values.mean(dtype=np.float64))

    @property
    def size(self) -> int:
        """Examples per iteration."""
        return int(self.network.batch_size)

    @cached_property
    def _values(self) -> Tensor:
        return torch.from_numpy(self.train.values).to(self.device) - self.mean

    @cached_property
    def _labels(self) -> Tensor:
        return torch.from_numpy(self.train.labels).to(self.device)

    def batch(self, number: int, *, warp: bool | float) -> Batch:
        """`input` (N, C, Y, X) or (N, features), `target` (N,), on the device."""
        index = torch.from_numpy(self._index(number)).to(self.device)
        rng = batch_generator(self.seed, number)
        values = self._values[index]
        if values.ndim > 2:
            values = self._augmented(_with_channel(values), rng, warp)
        return self._batch(values, self._labels[index])

    def draw(self, number: int, *, warp: bool | float, path: Path) -> None:
        """Draws the examples of an iteration with their classes."""
        examples_picture(self.batch(number, warp=warp), path)

    def _index(self, number: int) -> np.ndarray:
        """Indices (N,) of the examples of an iteration, in the order of its epoch."""
        places = np.arange(number * self.size, (number + 1) * self.size)
        epochs, within = np.divmod(places, len(self.train))
        return np.array([self._order(int(e))[w] for e, w in zip(epochs, within, strict=True)])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            rng = batch_generator(self.seed + EPOCHS, epoch)
            self._orders[epoch] = rng.permutation(len(self.train))
            self._orders.pop(epoch - 2, None)
        return self._orders[epoch]

    def _augmented(self, images: Tensor, rng: np.random.Generator, warp: bool | float) -> Tensor:
        """Images (N, C, Y, X) augmented with the network's settings."""
        own = self.network.distort
        if own and warp:
            images = distort_images(images, rng, **own.plain())
        if self.network.shift_augment:
            images = random_crop(images, rng, SHIFT)
        if not own and warp and rng.random() < float(warp):
            drawn = draw_digits_warp(rng)
            # The warp takes channels first and examples as z: it is the same for all channels.
            block = images.transpose(0, 1)
            images = apply_warp(block, drawn, triple(block.shape[1:])).transpose(0, 1)
        return images

    def prepared(self, examples: ExampleSet) -> Iterator[Batch]:
        """Batches of a split in its order, without augmentation."""
        for begin in range(0, len(examples), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            values = torch.from_numpy(examples.values[part]).to(self.device) - self.mean
            if values.ndim > 2:
                values = _with_channel(values)
                if self.network.shift_augment:
                    values = centre_crop(values, [n - SHIFT for n in values.shape[-2:]])
            yield self._batch(values, torch.from_numpy(examples.labels[part]).to(self.device))

    def monitor(self, split: str, count: int) -> Iterator[Batch]:
        """The first `count` examples of train or validation, without augmentation."""
        examples = self.train if split == "train" else self.validation
        return self.prepared(examples.take(np.arange(min(count, len(examples)))))

    def _batch(self, values: Tensor, labels: Tensor) -> Batch:
        if self.network.mode == "vect-scalar":
            values = values.flatten(1)
        expected = tuple(self.network.input_shape)
        shape = tuple(values.shape[1:]) if len(expected) == 1 else tuple(values.shape[2:])
        if shape != expected:
            raise _shape_error(self.network.name, shape, expected)
        reconstructs = self.network.autoencoder is not None
        return {"input": values.contiguous(), "target": values if reconstructs else labels}


def _with_channel(values: Tensor) -> Tensor:
    return values if values.ndim == 4 else values.unsqueeze(1)


def _shape_error(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> ConfigError:
    return ConfigError(
        f"network {name!r} has desired_input {list(expected)}, and an example has {list(shape)} "
        f"(after `shift_augment`, which takes {SHIFT} pixels off); set `desired_input` to that, "
        "or turn `shift_augment` on or off"
    )


def training_examples(network: ElektronnNetworkSettings, source: ExamplesSource) -> ExampleSet:
    """The examples that a network trains on: auto-encoders take those without labels too."""
    return open_examples(source, "train", with_unlabelled=network.autoencoder is not None)


def open_example_batches(
    network: ElektronnNetworkSettings, dataset: TrainingExamples, seed: int, device: torch.device
) -> ExampleBatches:
    """Opens a dataset's examples; DataError or ConfigError if the network cannot take them."""
    examples = dataset.examples
    train = training_examples(network, examples)
    held_out = open_examples(examples, "validation")
    batches = ExampleBatches(network, train, held_out, seed, device)
    if train.values.shape[1:] != held_out.values.shape[1:]:
        raise DataError(
            f"dataset {dataset.name!r}: training examples have the shape "
            f"{train.values.shape[1:]}, those held out {held_out.values.shape[1:]}"
        )
    if network.mode == "img-scalar" and train.values.ndim < 3:
        raise ConfigError(
            f"network {network.name!r} has mode img-scalar, and dataset {dataset.name!r} has "
            f"vectors of {train.values.shape[1]} values; take a network of mode vect-scalar, or "
            "set `image_shape` to their shape as images"
        )
    first = next(batches.monitor("validation", 1))  # raises if the size does not fit
    print(
        f"[train] {examples.classes}-class data set: {len(train)} training examples and "
        f"{len(held_out)} for validation, each {tuple(first['input'].shape[1:])}",
        flush=True,
    )
    return batches
