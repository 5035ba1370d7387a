"""Alignment metrics: correlation of neighbours, endpoint error, folds, roughness, drift.

Correlation alone is misleading: a field that is too flexible makes neighbours agree more than they
should. It is therefore always reported with endpoint error, folds and roughness, and with the
correlation of sections two apart, which alignment does not optimise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace.displacement import folded, inside, length, roughness, warp

CHUNKS = 12
"""Chunks along an axis (Mitchell et al. 2019: 12 x 12 equal chunks of a section)."""
PERCENTILES = (1, 5, 95, 99)


def chunked_correlation(
    first: np.ndarray, second: np.ndarray, valid: np.ndarray | None = None, chunks: int = CHUNKS
) -> np.ndarray:
    """Pearson correlation of two sections (H, W) per chunk, (chunks, chunks).

    A chunk's sides are the section's divided by `chunks`, rounded down; the remainder is ignored.
    NaN where a chunk is constant in either section or has a pixel that is not `valid` (the paper
    drops chunks with missing data).
    """
    side = [n // chunks for n in first.shape]
    if min(side) == 0:
        raise ValueError(f"sections of {first.shape} px have no {chunks} x {chunks} chunks")
    a, b = (_chunks(np.asarray(part, np.float64), side, chunks) for part in (first, second))
    a, b = (part - part.mean(-1, keepdims=True) for part in (a, b))
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    correlation = np.where(norm > 1e-12, (a * b).sum(-1) / np.maximum(norm, 1e-12), np.nan)
    if valid is not None:
        whole = _chunks(valid.astype(bool), side, chunks).all(-1)
        correlation = np.where(whole, correlation, np.nan)
    return np.asarray(correlation)


def _chunks(section: np.ndarray, side: list[int], chunks: int) -> np.ndarray:
    """Pixels of each chunk, (chunks, chunks, pixels)."""
    cut = section[: side[0] * chunks, : side[1] * chunks]
    parts = cut.reshape(chunks, side[0], chunks, side[1]).swapaxes(1, 2)
    return np.asarray(parts.reshape(chunks, chunks, -1))


def correlation_summary(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean, variance and percentiles of the coefficients that are not NaN."""
    finite = values[~np.isnan(values)]
    if not finite.size:
        names = ["mean", "variance", *(f"percentile_{p}" for p in PERCENTILES)]
        return {"chunks": 0, **dict.fromkeys(names, None)}
    at = np.percentile(finite, PERCENTILES)
    return {
        "chunks": int(finite.size),
        "mean": float(finite.mean()),
        "variance": float(finite.var()),
        **{f"percentile_{p}": float(v) for p, v in zip(PERCENTILES, at, strict=True)},
    }


def remaining_displacement(field: Tensor, applied: Tensor) -> Tensor:
    """The displacement that remains after alignment, (1, 2, H, W) px.

    `applied` t: what the section shows at p is at p + t(p) in the undistorted section. Warped by
    `field`, it shows at r what is at r + field(r) + t(r + field(r)).
    """
    return field + warp(applied, field, "border")


def endpoint_errors(
    field: Tensor, applied: Tensor, target: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Endpoint errors (n,) px: distances of pixels from the same tissue in the target.

    `target` (1, 2, H, W): the displacement that remains in the target. Pixels that are not `valid`
    (1, 1, H, W) or that read from outside the section are left out.
    """
    errors = length(remaining_displacement(field, applied) - target)[0]
    counted = inside(field)[0, 0]
    if valid is not None:
        counted = counted & (valid[0, 0] > 0)
    return errors[counted]


def error_summary(errors: Tensor) -> dict[str, float | None]:
    """Mean, median, 95th percentile and maximum of errors (n,) px; None if there are none."""
    if not errors.numel():
        return dict.fromkeys(("mean", "median", "percentile_95", "max"), None)
    values = errors.double().numpy()
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "percentile_95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }


@dataclass(frozen=True)
class FieldFacts:
    """Properties of a field: fraction of folded pixels, roughness |grad|^2, lengths in px."""

    folded: float
    folded_outside: float
    roughness: float
    mean_px: float
    max_px: float


def field_facts(field: Tensor, defect: Tensor | None = None) -> FieldFacts:
    """Properties of a field (1, 2, H, W); folds are allowed where `defect` (1, 1, H, W) is 1."""
    bad = folded(field)[0]
    clean = torch.ones_like(bad) if defect is None else defect[0, 0, :-1, :-1] == 0
    outside = float(bad[clean].float().mean()) if bool(clean.any()) else 0.0
    far = length(field)
    return FieldFacts(
        float(bad.float().mean()),
        outside,
        float(roughness(field)[0]),
        float(far.mean()),
        float(far.max()),
    )


def drift(section: Tensor, anchor: Tensor, valid: Tensor) -> float | None:
    """Length of the mean displacement between two sections of a stack, px; None without pixels.

    `section`, `anchor` (1, 2, H, W) px: their remaining displacements.
    """
    counted = valid[0, 0] > 0
    if not bool(counted.any()):
        return None
    mean = (section - anchor)[0][:, counted].mean(1)
    return float(torch.linalg.vector_norm(mean))


def alignment_table(scores: Mapping[str, Any]) -> str:
    """The scores of an aligned stack as a text table."""
    rows: list[tuple[str, ...]] = [("", "before", "after")]
    for name, label in (("all", "all sections"), ("held_out", "held-out sections")):
        part = scores.get(name)
        if not part:
            continue
        rows.append((f"{label} ({part['pairs']} pairs)", "", ""))
        for key, text in ROWS:
            if part["before"].get(key) is not None or part["after"].get(key) is not None:
                values = [_number(part[side].get(key)) for side in ("before", "after")]
                rows.append((f"  {text}", *values))
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}".rstrip() for a, b, c in rows)
    return "\n".join(lines) + "\n"


ROWS = (
    ("correlation", "correlation of neighbours, mean"),
    ("correlation_5", "correlation of neighbours, 5 %"),
    ("correlation_95", "correlation of neighbours, 95 %"),
    ("correlation_two", "correlation two sections apart, mean"),
    ("error_px", "endpoint error to the neighbour, mean px"),
    ("error_median_px", "endpoint error to the neighbour, median px"),
    ("error_95_px", "endpoint error to the neighbour, 95 % px"),
    ("folded", "folded pixels"),
    ("folded_outside", "folded pixels outside defects"),
    ("roughness", "roughness |grad|^2"),
    ("drift_px", "drift from the first section, greatest px"),
)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
