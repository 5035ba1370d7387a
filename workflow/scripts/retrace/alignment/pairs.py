"""Pairs of neighbouring sections for training SEAMLeSS: epochs, stacks, pairs.

What a pair is depends on the seed and its number alone, so that a resumed training sees the same
pairs, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.prepare import prepared, valid_mask
from retrace.alignment.stack_files import Stack, StackDataset
from retrace.errors import DataError


@dataclass(frozen=True)
class Place:
    """Which pairs an iteration trains on: epoch, stack, number of the first pair and the next."""

    epoch: int
    visit: int
    stack: int
    first: int
    end: int


class PairPlan:
    """Order of stacks and pairs: every epoch sees each stack `visits_per_stack` times, shuffled."""

    def __init__(self, stacks: int, pairs: int, network: Mapping[str, Any], seed: int) -> None:
        """`stacks` of `pairs` pairs each."""
        self.stacks, self.pairs, self.seed = stacks, pairs, seed
        self.visits = stacks * int(network["visits_per_stack"])
        self.at_once = min(int(network["pairs_per_step"]), pairs)
        self.steps_per_visit = -(-pairs // self.at_once)

    @property
    def iterations_per_epoch(self) -> int:
        return self.visits * self.steps_per_visit

    def epoch(self, iteration: int) -> int:
        """The epoch of an iteration, both from 0."""
        return iteration // self.iterations_per_epoch

    @lru_cache(maxsize=4)  # noqa: B019 (one plan a training)
    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 0, epoch))
        return rng.permutation(self.visits) % self.stacks

    def place(self, iteration: int) -> Place:
        """What iteration number `iteration`, from 0, trains on."""
        epoch, inner = divmod(iteration, self.iterations_per_epoch)
        visit, step = divmod(inner, self.steps_per_visit)
        first = step * self.at_once
        end = min(first + self.at_once, self.pairs)
        return Place(epoch, visit, int(self._order(epoch)[visit]), first, end)


def check_stacks(dataset: StackDataset, network: Mapping[str, Any]) -> int:
    """Sections of a stack, the same in all sets; DataError where they differ or are too small."""
    heights = {one.shape[1] for one in dataset.sets}
    if len(heights) > 1:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in dataset.sets)
        raise DataError(
            f"stacks of different heights cannot be trained on together: {shapes}; make them with "
            "one `height`"
        )
    unit = 2 ** (network["height"] - 1 - network["topskips"])
    side = network["crop"]
    for one in dataset.sets:
        given = one.shape[2:] if side is None else (side, side)
        if any(n % unit for n in given) or min(one.shape[2:]) < (side or 0):
            raise DataError(
                f"{one.path}: {one.name} has sections of {list(one.shape[2:])} px; network "
                f"{network['name']!r} trains on {side or 'whole ones'} (`crop`), whose sides must "
                f"be multiples of {unit} and no larger than the sections"
            )
    return heights.pop()


@dataclass(frozen=True)
class Sample:
    """A stack with even contrast: images (S, H, W) in [0, 1], masks and valid (S, H, W), and what
    was applied to the sections (S, 2, H, W) px, 0 where nobody knows; all float32. `known`: whether
    somebody does."""

    images: Tensor
    masks: Tensor
    valid: Tensor
    fields: Tensor
    known: bool

    @classmethod
    def of(cls, stack: Stack, network: Mapping[str, Any]) -> Sample:
        """Each section normalised as a whole, once."""
        valid = valid_mask(stack.images)
        fields = stack.fields
        if fields is None:
            fields = torch.zeros(len(valid), 2, *valid.shape[1:])
        images, _ = prepared(stack.images, valid, network)
        return cls(images, stack.masks.float(), valid.float(), fields, stack.fields is not None)

    def only(self, section: int) -> Sample:
        """The same section again and again: whatever was done to it, nothing lies between."""
        same = [section] * len(self.images)
        images, masks, valid = self.images[same], self.masks[same], self.valid[same]
        return Sample(images, masks, valid, self.fields[same], known=True)


class StackReader:
    """Stacks by number, the last ones kept; threads may share it."""

    def __init__(
        self, stacks: StackDataset | Sequence[Stack], network: Mapping[str, Any], keep: int = 64
    ) -> None:
        self.stacks, self.network, self.keep = stacks, network, keep
        self._kept: dict[int, Sample] = {}
        self._lock = Lock()

    def __getitem__(self, index: int) -> Sample:
        with self._lock:
            if index not in self._kept:
                while len(self._kept) >= self.keep:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[index] = Sample.of(self.stacks[index], self.network)
            return self._kept[index]


def spread(images: Tensor, valid: Tensor, level: int, rescale: bool) -> Tensor:
    """Images (N, 1, H, W) averaged over 2^level px, missing ones left out.

    `rescale`: mean and standard deviation of each over its valid pixels as before, for averaging
    takes contrast away and so makes smoothness weigh more (README, training from scratch).
    """
    factor = 2**level
    if level == 0:
        return images
    seen = functional.avg_pool2d(valid, factor)
    coarse = functional.avg_pool2d(images * valid, factor) / seen.clamp(min=1e-6)
    coarse = coarse * (seen > 0)
    return _rescaled(coarse, (seen > 0).float(), images, valid) if rescale else coarse


def _rescaled(coarse: Tensor, seen: Tensor, images: Tensor, valid: Tensor) -> Tensor:
    mean, deviation = moments(images, valid)
    now, now_deviation = moments(coarse, seen)
    return ((coarse - now) * (deviation / now_deviation.clamp(min=1e-6)) + mean) * seen


def moments(images: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each image (N, 1, H, W) over its valid pixels."""
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    mean = (images * valid).sum((-2, -1), keepdim=True) / count
    variance = ((images - mean).square() * valid).sum((-2, -1), keepdim=True) / count
    return mean, variance.sqrt()


def is_blank(images: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Which images (N, 1, H, W) are empty or nearly constant: variance below `threshold`, (N,)."""
    _, deviation = moments(images, valid)
    empty = valid.sum((-3, -2, -1)) == 0
    return (deviation.square().flatten() < threshold) | empty


def turned(
    tensors: list[Tensor], fields: Tensor, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Stacks (S, H, W) and displacements (S, 2, H, W), all turned by the same multiple of 90
    degrees, flipped in y and z."""
    quarters, flip_y, flip_z = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    *found, fields = [_turned(tensor, quarters, flip_y, flip_z) for tensor in (*tensors, fields)]
    for _ in range(quarters):  # what pointed along y points along x, what pointed along x up
        fields = torch.stack([-fields[:, 1], fields[:, 0]], dim=1)
    if flip_y:
        fields = torch.stack([-fields[:, 0], fields[:, 1]], dim=1)
    return found, fields


def _turned(tensor: Tensor, quarters: int, flip_y: bool, flip_z: bool) -> Tensor:
    now = torch.rot90(tensor, quarters, (-2, -1))
    now = now.flip(-2) if flip_y else now
    return now.flip(0) if flip_z else now
