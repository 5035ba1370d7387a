"""The losses and the speed of a training, as training.json keeps them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from retrace.planning.train_settings import TrainSettings
from retrace.storage.manifest import gpu_name, peak_memory_mb
from retrace.training.loop import TrainingOutcome

HISTORY_ROWS = 2000
"""Most rows of a history; with more iterations, a row is the mean over several of them."""
LAST = 100
"""How many of the last iterations the loss in a model's metadata averages."""


def mean_rows(losses: Tensor) -> list[tuple[int, Tensor]]:
    """(Last iteration, mean terms (terms,)) of equal ranges of `losses` (iterations, terms)."""
    count = len(losses)
    length = max(1, -(-count // HISTORY_ROWS))
    return [
        (min(begin + length, count), losses[begin : begin + length].double().mean(dim=0))
        for begin in range(0, count, length)
    ]


def training_history(
    settings: TrainSettings, outcome: TrainingOutcome, seconds: float
) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal ranges of iterations."""
    rows = []
    for end, terms in mean_rows(outcome.losses):
        row: dict[str, Any] = {"iteration": outcome.begun + end}
        row["loss"] = float(terms[: len(terms) - outcome.observed].sum())
        rows.append(row | dict(zip(outcome.terms, terms.tolist(), strict=True)))
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
        "history": rows,
    }


def last_loss(outcome: TrainingOutcome) -> float | None:
    """Mean loss of the last iterations; None if no iteration was trained."""
    if not len(outcome.losses):
        return None
    minimised = outcome.losses.shape[1] - outcome.observed
    return round(float(outcome.losses[-LAST:, :minimised].double().sum(dim=1).mean()), 6)
