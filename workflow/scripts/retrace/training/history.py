"""The losses and the speed of a training, as training.json keeps them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from retrace.planning.train_settings import TrainSettings
from retrace.storage.manifest import gpu_name, peak_memory_mb
from retrace.training.compared import LAST, number, total
from retrace.training.loop import TrainingOutcome
from retrace.training.validation import ValidationCurve

HISTORY_ROWS = 2000
"""Most rows of a history; with more iterations, a row is the mean over several of them."""


def mean_rows(losses: Tensor) -> list[tuple[int, Tensor]]:
    """(Last iteration, mean terms (terms,)) of equal ranges of `losses` (iterations, terms).

    A term is NaN where nothing was compared in the whole range.
    """
    count = len(losses)
    length = max(1, -(-count // HISTORY_ROWS))
    return [
        (min(begin + length, count), losses[begin : begin + length].double().nanmean(dim=0))
        for begin in range(0, count, length)
    ]


def history_rows(outcome: TrainingOutcome) -> list[dict[str, Any]]:
    """The loss and its terms, averaged over equal ranges of iterations."""
    return [
        {"iteration": outcome.begun + end, "loss": number(total(terms, outcome.observed))}
        | dict(zip(outcome.terms, map(number, terms), strict=True))
        for end, terms in mean_rows(outcome.losses)
    ]


def training_history(
    settings: TrainSettings,
    outcome: TrainingOutcome,
    seconds: float,
    validation: ValidationCurve | None = None,
) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal ranges of iterations.

    `validation`: the measurements, which are added as they are.
    """
    measured = validation.content(outcome.iteration) if validation else None
    return {
        "dataset": settings.dataset.name,
        "network": settings.network.name,
        "iterations": outcome.iteration,
        "batch_size": settings.network.batch_size,
        "processes": settings.gpus,
        "seed": settings.seed,
        "terms": list(outcome.terms),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
        "gpu": gpu_name(),
        "training_seconds": round(outcome.all_seconds, 3),
        "iterations_this_run": outcome.done_here,
        "iterations_per_second": round(outcome.done_here / max(outcome.seconds, 1e-9), 4),
        "share_waiting_for_data": round(outcome.waited_s / max(outcome.seconds, 1e-9), 4),
        "history": history_rows(outcome),
        "validation": measured,
    }


def last_loss(outcome: TrainingOutcome) -> float | None:
    """Mean loss of the last iterations; None if none was trained, or nothing was compared."""
    if not len(outcome.losses):
        return None
    loss = number(total(outcome.losses[-LAST:].double(), outcome.observed).nanmean())
    return None if loss is None else round(loss, 6)
