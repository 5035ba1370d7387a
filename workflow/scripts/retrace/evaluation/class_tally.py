"""Counts of classified voxels: true and predicted classes, and the log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retrace.errors import DataError

EPS = 1e-6
"""Added to a probability before its logarithm, as in ELEKTRONN's loss."""


def probabilities_of(stored: np.ndarray) -> np.ndarray:
    """Class probabilities (C, ...) float64, which sum to 1, from a stored prediction (C, ...).

    A prediction is float, or uint8: 255 times the probability, truncated, so that the middle of
    each step is taken.
    """
    values = (stored + 0.5) / 255 if stored.dtype == np.uint8 else stored.astype(np.float64)
    return np.asarray(values / values.sum(axis=0))


@dataclass
class ClassTally:
    """Voxels by true and predicted class, (classes, classes), and the sum of -log p."""

    classes: int
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Rows: true classes; columns: most probable classes."""
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not self.confusion.size:
            self.confusion = np.zeros((self.classes, self.classes), np.int64)

    @property
    def voxels(self) -> int:
        """Number of labelled voxels."""
        return int(self.confusion.sum())

    @property
    def fractions(self) -> np.ndarray:
        """The fraction of voxels in each true class, (classes,)."""
        return np.asarray(self.confusion.sum(axis=1) / self.voxels)

    def add(self, probabilities: np.ndarray, labels: np.ndarray, name: str) -> None:
        """Counts voxels: `probabilities` (C, ...), `labels` (...), negative where unlabelled.

        Raises DataError, with the `name` of the labels, for a label that is no class.
        """
        labelled = labels >= 0
        true = labels[labelled]
        if true.size and true.max() >= self.classes:
            raise DataError(
                f"{name} holds the label {true.max()}, and the network has the classes 0 to "
                f"{self.classes - 1}; correct `n_lab` or the labels"
            )
        of_labelled = probabilities[:, labelled]
        if not np.isfinite(of_labelled).all():
            raise DataError(
                f"the prediction scored on {name} holds NaN or infinity, or 0 for every class; "
                "delete it and predict again"
            )
        predicted = of_labelled.argmax(axis=0)
        pairs = true * self.classes + predicted
        counts = np.bincount(pairs, minlength=self.classes**2)
        self.confusion += counts.reshape(self.confusion.shape)
        of_true = np.take_along_axis(of_labelled, true[None], axis=0)
        self.cost -= float(np.log(of_true + EPS).sum())

    def __add__(self, other: ClassTally) -> ClassTally:
        return ClassTally(self.classes, self.confusion + other.confusion, self.cost + other.cost)
