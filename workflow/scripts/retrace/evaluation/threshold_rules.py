"""Rules that choose a threshold from what each object contributes to the VOI at each threshold.

The VOI is a sum over ground-truth objects. Validation volumes are small: one wrong merge of two
large objects can move the minimum of the sum, although all other objects fit a lower threshold. The
objects of the validation volumes are a sample of the objects that come later, and the rules below
take the spread between objects into account in different ways. All of them see validation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from retrace.evaluation.contingency import Contingency
from retrace.setting_types import ThresholdRule

Parts = NDArray[np.float64]
"""(thresholds, objects): bits that each object contributes to the VOI at each threshold."""

SMOOTHED_OVER = 5
"""Thresholds whose mean VOI `smoothed` compares: with the default step, 0.08 from first to last."""
DECIMALS = 12
"""VOI that agree to so many decimals are equal: sums in another order differ by less."""
DRAWS = 1000
"""Samples of objects that `bootstrap_median` draws."""
SEED = 0


def object_parts(table: Contingency) -> NDArray[np.float64]:
    """The part of the VOI of each object, bits, (objects,), by ascending id; their sum is the VOI.

    An object j has the terms of its pairs (i, j): p(i, j) (log2 p(j) / p(i, j) + log2 p(i) /
    p(i, j)).
    """
    counts = table.counts.astype(np.float64)
    ratios = table.ground_truth_totals / counts * (table.segment_totals / counts)
    _, rows = np.unique(table.ground_truth, return_inverse=True)
    return np.bincount(rows, counts / counts.sum() * np.log2(ratios)).astype(np.float64)


def pooled_parts(parts: list[Parts], voxels: list[int]) -> Parts:
    """The parts of the objects of several volumes, which are weighted by their scored voxels."""
    weights = np.array(voxels, np.float64) / sum(voxels)
    return np.concatenate([part * weight for part, weight in zip(parts, weights, strict=True)], 1)


def _lowest(values: NDArray[np.float64]) -> int:
    """The first row of the least value."""
    return int(np.argmin(values.round(DECIMALS)))


def least_voi(parts: Parts) -> int:
    """The threshold of the least VOI; of equal ones, the lowest."""
    return _lowest(parts.sum(1))


def smoothed(parts: Parts) -> int:
    """The middle of the neighbouring thresholds with the least mean VOI."""
    window = min(SMOOTHED_OVER, len(parts))
    return _lowest(np.convolve(parts.sum(1), np.ones(window), "valid")) + window // 2


def one_standard_error(parts: Parts) -> int:
    """The lowest threshold whose VOI is within one standard error of the least one.

    The error is that of the difference, summed over objects: sqrt(n) times the standard deviation
    of an object's difference. All thresholds between them are within their errors, too. Lower
    thresholds join less. Rule: Breiman, Friedman, Olshen and Stone 1984, section 3.4.3.
    """
    best = chosen = least_voi(parts)
    objects = parts.shape[1]
    while chosen > 0 and objects > 1:
        difference = parts[chosen - 1] - parts[best]
        if difference.sum() > np.sqrt(objects) * difference.std(ddof=1):
            break
        chosen -= 1
    return chosen


def bootstrap_median(parts: Parts) -> int:
    """The median of the best thresholds of samples of objects, drawn with replacement."""
    objects, generator = parts.shape[1], np.random.default_rng(SEED)
    chances = np.full(objects, 1 / objects)
    # One sample at a time: all together are larger than the parts if there are many objects.
    best = [_lowest(parts @ generator.multinomial(objects, chances)) for _ in range(DRAWS)]
    return sorted(best)[(DRAWS - 1) // 2]


RULES: Mapping[ThresholdRule, Callable[[Parts], int]] = {
    "least_voi": least_voi,
    "smoothed": smoothed,
    "one_standard_error": one_standard_error,
    "bootstrap_median": bootstrap_median,
}
"""Each rule as a function of parts (thresholds, objects), which returns the row it chooses."""

DESCRIPTIONS: Mapping[ThresholdRule, str] = {
    "least_voi": "least VOI sum",
    "smoothed": f"least VOI sum, averaged over {SMOOTHED_OVER} neighbouring thresholds",
    "one_standard_error": "lowest threshold whose VOI sum is within one standard error, over "
    "objects, of the least",
    "bootstrap_median": f"median threshold of the least VOI sum over {DRAWS} samples of objects",
}
