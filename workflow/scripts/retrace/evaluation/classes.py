"""Error, negative log-likelihood and per-class scores of classified voxels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrace.errors import DataError

EPS = 1e-6
"""Added to a probability before its logarithm, as in ELEKTRONN's loss."""
CONVENTION = (
    "error: share of labelled voxels whose likeliest class is another; nll: mean of "
    f"-log(p + {EPS:g}) of the true class, natural logarithm; probabilities stored as uint8 count "
    "as the middle of their step and are made to sum to 1"
)


def probabilities_of(stored: np.ndarray) -> np.ndarray:
    """(C, ...) float64 that sum to 1, from floats, or uint8 as predictions are stored: 255 p,
    truncated."""
    values = (stored + 0.5) / 255 if stored.dtype == np.uint8 else stored.astype(np.float64)
    found: np.ndarray = values / values.sum(axis=0)
    return found


@dataclass
class Tally:
    """What is counted: true against predicted classes, and the sum of -log p."""

    classes: int
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(true, predicted)."""
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not self.confusion.size:
            self.confusion = np.zeros((self.classes, self.classes), np.int64)

    def add(self, probabilities: np.ndarray, labels: np.ndarray, name: str) -> None:
        """Counts voxels: `probabilities` (C, ...), `labels` (...), below 0 where none is.

        DataError for a label that is no class, with the `name` it comes from.
        """
        known = labels >= 0
        truth = labels[known]
        if truth.size and truth.max() >= self.classes:
            raise DataError(
                f"{name} holds the label {truth.max()}, and the network has the classes 0 to "
                f"{self.classes - 1}; correct `n_lab` or the labels"
            )
        chosen = probabilities[:, known]
        predicted = chosen.argmax(axis=0)
        pairs = truth * self.classes + predicted
        counts = np.bincount(pairs, minlength=self.classes**2)
        self.confusion += counts.reshape(self.confusion.shape)
        of_truth = np.take_along_axis(chosen, truth[None], axis=0)
        self.cost -= float(np.log(of_truth + EPS).sum())

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.classes, self.confusion + other.confusion, self.cost + other.cost)


def summary(tally: Tally) -> dict[str, Any]:
    """Scores of a tally, and what knowing nothing but the classes' shares would give.

    DataError where nothing is labelled.
    """
    total = int(tally.confusion.sum())
    if not total:
        raise DataError("no voxel of the test entries has a label; correct `labels` or `roi_nm`")
    shares = tally.confusion.sum(axis=1) / total
    present = shares[shares > 0]
    right = np.diag(tally.confusion)
    return {
        "voxels": total,
        "error": 1 - float(right.sum()) / total,
        "nll": tally.cost / total,
        "error_of_commonest": 1 - float(shares.max()),
        "nll_of_shares": -float((present * np.log(present)).sum()),
        "per_class": [
            _of_class(tally, number, float(share)) for number, share in enumerate(shares)
        ],
    }


def _of_class(tally: Tally, number: int, share: float) -> dict[str, float | None]:
    hit = int(tally.confusion[number, number])
    true = int(tally.confusion[number].sum())
    told = int(tally.confusion[:, number].sum())
    return {
        "share": share,
        "precision": hit / told if told else None,
        "recall": hit / true if true else None,
        "intersection_over_union": hit / (true + told - hit) if true + told else None,
    }
