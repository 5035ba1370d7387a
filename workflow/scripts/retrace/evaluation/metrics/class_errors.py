"""Error and negative log-likelihood of classified voxels, and the scores of guessing."""

from __future__ import annotations

import numpy as np

from retrace.evaluation.class_tally import EPS, ClassTally
from retrace.evaluation.metric import Metric


def error(tally: ClassTally) -> float:
    """Fraction of the labelled voxels whose most probable class is not theirs."""
    return 1 - float(np.diag(tally.confusion).sum()) / tally.voxels


def negative_log_likelihood(tally: ClassTally) -> float:
    """Mean of -log(p) of the true class, natural logarithm."""
    return tally.cost / tally.voxels


def error_of_commonest(tally: ClassTally) -> float:
    """The error of always guessing the most frequent class."""
    return 1 - float(tally.fractions.max())


def entropy_of_classes(tally: ClassTally) -> float:
    """The negative log-likelihood of guessing each class with its frequency: its entropy."""
    present = tally.fractions[tally.fractions > 0]
    return -float((present * np.log(present)).sum())


CLASS_METRICS: tuple[Metric[ClassTally], ...] = (
    Metric(
        "error",
        "error",
        "fraction of labelled voxels whose most probable class is another",
        better="lower",
        value=error,
        convention="error: share of labelled voxels whose likeliest class is another",
        in_tables=True,
    ),
    Metric(
        "nll",
        "NLL",
        "mean of −log p of the true class",
        better="lower",
        unit="nats",
        value=negative_log_likelihood,
        convention=f"nll: mean of -log(p + {EPS:g}) of the true class, natural logarithm",
        in_tables=True,
    ),
    Metric(
        "error_of_commonest",
        "error of the commonest class",
        "`error` of always guessing the most frequent class",
        better="lower",
        value=error_of_commonest,
    ),
    Metric(
        "nll_of_shares",
        "NLL of the class frequencies",
        "`nll` of guessing each class with its frequency",
        better="lower",
        unit="nats",
        value=entropy_of_classes,
    ),
)
