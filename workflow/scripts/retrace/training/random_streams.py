"""Random numbers of a training: a function of the seed and the number of the batch alone."""

from __future__ import annotations

import numpy as np


def batch_generator(seed: int, iteration: int) -> np.random.Generator:
    """The random generator of one batch, independent of workers, order and restarts."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, iteration], dtype=np.uint64)))


def network_seed(seed: int, number: int) -> int:
    """The torch seed for a network's own randomness on one batch, such as dropout.

    Hashed, because torch's CPU generator uses only the lower 32 bits of a seed.
    """
    return int(batch_generator(seed, number).bit_generator.random_raw()) >> 1
