"""Random numbers of a training: a function of the seed and the number of the batch alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def batch_generator(seed: int, iteration: int) -> np.random.Generator:
    """The random generator of one batch, independent of workers, order and restarts."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, iteration], dtype=np.uint64)))


def seed_network(seed: int, batch: Mapping[str, Tensor]) -> None:
    """Seeds torch for a network's own randomness, such as dropout, on a batch with its `number`.

    Hashed, because torch's CPU generator uses only the lower 32 bits of a seed.
    """
    generator = batch_generator(seed, int(batch["number"]))
    torch.manual_seed(int(generator.bit_generator.random_raw()) >> 1)
