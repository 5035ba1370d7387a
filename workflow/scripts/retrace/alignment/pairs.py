"""Pairs of neighbouring sections for training SEAMLeSS: their order, and their preparation.

A pair depends only on the seed and its number, so that a resumed training sees the same pairs with
any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.alignment.stack_files import Stack, StackDataset
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.errors import DataError
from retrace.targets.ternary import INSIDE, ternary


@dataclass(frozen=True)
class PairRange:
    """The pairs of one iteration: `first` to `end` - 1 of a stack in a visit of an epoch."""

    epoch: int
    visit: int
    stack: int
    first: int
    end: int


class PairPlan:
    """The order of stacks and pairs: each epoch visits each stack `visits_per_stack` times."""

    def __init__(
        self, stacks: int, pairs: int, seed: int, *, visits_per_stack: int, pairs_per_step: int
    ) -> None:
        """`stacks`: how many there are, with `pairs` pairs each."""
        self.stacks, self.pairs, self.seed = stacks, pairs, seed
        self.visits = stacks * visits_per_stack
        self.at_once = min(pairs_per_step, pairs)
        self.steps_per_visit = -(-pairs // self.at_once)

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations of one epoch."""
        return self.visits * self.steps_per_visit

    def epoch(self, iteration: int) -> int:
        """The epoch of an iteration, both from 0."""
        return iteration // self.iterations_per_epoch

    @lru_cache(maxsize=4)  # noqa: B019 (one plan per training)
    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 0, epoch))
        return rng.permutation(self.visits) % self.stacks

    def place(self, iteration: int) -> PairRange:
        """The pairs of iteration `iteration`, from 0."""
        epoch, inner = divmod(iteration, self.iterations_per_epoch)
        visit, step = divmod(inner, self.steps_per_visit)
        first = step * self.at_once
        end = min(first + self.at_once, self.pairs)
        return PairRange(epoch, visit, int(self._order(epoch)[visit]), first, end)


def check_stacks(dataset: StackDataset, network: SeamlessNetworkSettings) -> int:
    """Sections per stack; DataError if data sets differ in it, or have sections of a wrong size."""
    heights = {stacks.shape[1] for stacks in dataset.sets}
    if len(heights) > 1:
        shapes = ", ".join(f"{stacks.name} {stacks.shape}" for stacks in dataset.sets)
        raise DataError(
            f"stacks of different heights cannot be trained on together: {shapes}; sample them "
            "with one `height`"
        )
    unit = 2 ** (network.height - 1 - network.topskips)
    side = network.crop
    for stacks in dataset.sets:
        sides = stacks.shape[2:] if side is None else (side, side)
        if any(n % unit for n in sides) or min(stacks.shape[2:]) < (side or 0):
            raise DataError(
                f"{stacks.path}: {stacks.name} has sections of {list(stacks.shape[2:])} px; "
                f"network {network.name!r} trains on {side or 'whole ones'} (`crop`), whose "
                f"sides must be multiples of {unit} and no larger than the sections"
            )
    return heights.pop()


@dataclass(frozen=True)
class PreparedStack:
    """A stack with equalised contrast, all float32.

    `images` (S, H, W) in [0, 1], `masks` and `valid` (S, H, W). `fields` (S, 2, H, W) px: the
    displacements applied to the sections; zeros where unknown. `known` marks where ground truth is
    available.
    """

    images: Tensor
    masks: Tensor
    valid: Tensor
    fields: Tensor
    known: bool

    @classmethod
    def of(cls, stack: Stack, radius_px: int | None, near_px: int | None = None) -> PreparedStack:
        """Equalises each section as a whole; `radius_px`: see `prepare_sections`.

        `near_px`: the radius around defects that is marked as near them; None: as in the masks.
        """
        valid = valid_mask(stack.images)
        fields = stack.fields
        if fields is None:
            fields = torch.zeros(len(valid), 2, *valid.shape[1:])
        images, _ = prepare_sections(stack.images, valid, radius_px=radius_px, fill=0)
        masks = stack.masks if near_px is None else ternary(stack.masks == INSIDE, near_px)
        return cls(images, masks.float(), valid.float(), fields, stack.fields is not None)

    def only(self, section: int) -> PreparedStack:
        """One section repeated: the true displacement is zero."""
        same = [section] * len(self.images)
        images, masks, valid = self.images[same], self.masks[same], self.valid[same]
        return PreparedStack(images, masks, valid, self.fields[same], known=True)


class StackReader:
    """Prepared stacks by number, the last ones cached; threads may share it."""

    def __init__(
        self,
        stacks: StackDataset | Sequence[Stack],
        radius_px: int | None,
        keep: int = 64,
        near_px: int | None = None,
    ) -> None:
        """`radius_px`, `near_px`: see `PreparedStack.of`; `keep`: most stacks in memory."""
        self.stacks, self.radius_px, self.keep, self.near_px = stacks, radius_px, keep, near_px
        self._kept: dict[int, PreparedStack] = {}
        self._lock = Lock()

    def __getitem__(self, index: int) -> PreparedStack:
        with self._lock:
            if index not in self._kept:
                while len(self._kept) >= self.keep:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[index] = PreparedStack.of(
                    self.stacks[index], self.radius_px, self.near_px
                )
            return self._kept[index]


def average_valid(images: Tensor, valid: Tensor, level: int, rescale: bool) -> Tensor:
    """Images (N, 1, H, W) averaged over 2^level px, without the missing pixels.

    `rescale`: restores mean and standard deviation of each image over its valid pixels. Averaging
    reduces contrast, which would give smoothness more weight (README, training from scratch).
    """
    factor = 2**level
    if level == 0:
        return images
    fraction = functional.avg_pool2d(valid, factor)
    coarse = functional.avg_pool2d(images * valid, factor) / fraction.clamp(min=1e-6)
    coarse = coarse * (fraction > 0)
    return _with_moments_of(images, valid, coarse, (fraction > 0).float()) if rescale else coarse


def _with_moments_of(images: Tensor, valid: Tensor, coarse: Tensor, coarse_valid: Tensor) -> Tensor:
    """`coarse` with mean and deviation of `images`, each over its valid pixels, (N, 1, H, W)."""
    mean, deviation = moments(images, valid)
    coarse_mean, coarse_deviation = moments(coarse, coarse_valid)
    factor = deviation / coarse_deviation.clamp(min=1e-6)
    return ((coarse - coarse_mean) * factor + mean) * coarse_valid


def moments(images: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (N, 1, 1, 1) of images (N, 1, H, W) over their valid pixels."""
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    mean = (images * valid).sum((-2, -1), keepdim=True) / count
    variance = ((images - mean).square() * valid).sum((-2, -1), keepdim=True) / count
    return mean, variance.sqrt()


def is_blank(images: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Which images (N, 1, H, W) are empty or have a variance below `threshold`, (N,) bool."""
    _, deviation = moments(images, valid)
    empty = valid.sum((-3, -2, -1)) == 0
    return (deviation.square().flatten() < threshold) | empty


def rotate_and_flip(
    tensors: list[Tensor], fields: Tensor, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Stacks (S, H, W) and displacements (S, 2, H, W), all rotated and flipped in the same way.

    A random multiple of 90 degrees, and random flips of y and z.
    """
    quarters, flip_y, flip_z = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    *turned, fields = [_turned(tensor, quarters, flip_y, flip_z) for tensor in (*tensors, fields)]
    for _ in range(quarters):  # rotate the vectors: y becomes x, x becomes -y
        fields = torch.stack([-fields[:, 1], fields[:, 0]], dim=1)
    if flip_y:
        fields = torch.stack([-fields[:, 0], fields[:, 1]], dim=1)
    return turned, fields


def _turned(tensor: Tensor, quarters: int, flip_y: bool, flip_z: bool) -> Tensor:
    turned = torch.rot90(tensor, quarters, (-2, -1))
    turned = turned.flip(-2) if flip_y else turned
    return turned.flip(0) if flip_z else turned
