"""ELEKTRONN's curves of a training: loss of each iteration, measurements, and errors.

Source: ELEKTRONN, elektronn/training/trainutils.py (plotInfo).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from retrace.files import atomic_write
from retrace.training.elektronn_pictures import new_figure, save_figure
from retrace.training.history import mean_rows

COLUMNS = (
    "iteration",
    "seconds",
    "loss_ema",
    "loss",
    "train_loss",
    "validation_loss",
    "loss_change",
    "lr",
    "momentum",
    "warp",
    "train_error",
    "validation_error",
)
"""Columns of history.csv; errors are fractions."""
SMOOTHED_OVER = 8
"""Measurements that a smoothed curve averages, as in ELEKTRONN."""
EMA_START, EMA_DECAY = 0.65, 0.995
"""First value and decay of ELEKTRONN's smoothed loss (trainer.py)."""
FEW = 20
"""Up to this number of values, each is also drawn as a dot: one value alone makes no line."""
CAP = 3
"""Errors are drawn up to this many times their mean, as in ELEKTRONN: the first ones are large."""
SPLITS = {"train": "training", "validation": "validation"}
COLOURS = {"training": "tab:green", "validation": "tab:red"}
MOST_MARKS = 6
"""Up to this number of changes, each is marked; a schedule that changes all the time is not."""
SHORT_SECONDS = 300
"""Trainings that are shorter are drawn with seconds."""
OTHER_COLOUR = "tab:blue"

Rows = Sequence[Mapping[str, Any]]
"""Measurements, columns as COLUMNS."""
Losses = Sequence[tuple[int, float]]
"""(Last iteration, mean loss) of consecutive ranges of iterations; of each one, if they are few.

NaN where nothing was compared.
"""


class Curve(NamedTuple):
    """Values (n,) at iterations (n,); `smooth`: an average of the last of them, or None."""

    label: str
    at: np.ndarray
    values: np.ndarray
    smooth: np.ndarray | None = None
    is_average: bool = False
    """Whether the values themselves are an average: a thick black line without dots."""


class Panel(NamedTuple):
    """One diagram: its curves, what they show, and what is written if there are none."""

    label: str
    curves: Sequence[Curve]
    missing: str = "not measured"
    is_capped: bool = False
    from_zero: bool = False


def smoothed_losses(losses: Losses) -> list[float]:
    """ELEKTRONN's exponential average after each range of iterations, unchanged by NaN."""
    smooth, ema, before = [], EMA_START, 0
    for iteration, loss in losses:
        if math.isfinite(loss):
            decay = EMA_DECAY ** (iteration - before)
            ema = decay * ema + (1 - decay) * loss
        before = iteration
        smooth.append(ema)
    return smooth


def loss_curve(losses: Tensor) -> Losses:
    """The loss (n,) of each iteration, or means over at most 2000 equal ranges."""
    return [(end, float(mean)) for end, (mean,) in mean_rows(losses[:, None])]


def status_line(row: Mapping[str, Any]) -> str:
    """A measurement as a line for the terminal, as ELEKTRONN prints one."""
    loss, change = (math.nan if row[n] is None else row[n] for n in ("loss", "loss_change"))
    parts = [f"iteration {row['iteration']}: loss {loss:.3f}"]
    for split in ("train", "validation"):
        if f"{split}_error" in row:
            parts.append(f"{split} error {100 * row[f'{split}_error']:.2f} %")
        elif f"{split}_loss" in row:
            parts.append(f"{split} loss {row[f'{split}_loss']:.5f}")
    parts += [f"loss change {change:+.1e}", f"lr {row['lr']:.5f}"]
    return ", ".join([*parts, f"{row['seconds']:.0f} s"])


def history_csv(rows: Rows) -> str:
    """The rows as CSV; empty cells where a training has no such value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([dict(row) for row in rows])
    return text.getvalue()


def curve_pictures(rows: Rows, losses: Losses, folder: Path) -> list[Path]:
    """Writes timeline.png, history.png, errors.png and history.csv of a training so far."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "history.csv", history_csv(rows))
    pictures = {
        "timeline": [_loss_panel(losses), _rate_panel(rows)],
        "history": [
            Panel("loss", _split_curves(rows, "loss", 1), is_capped=True),
            Panel(
                "change of the loss by one update",
                [_curve(rows, "loss_change", "")],
                is_capped=True,
            ),
        ],
        "errors": [_error_panel(rows)],
    }
    return [_draw(rows, folder / f"{name}.png", panels) for name, panels in pictures.items()]


def _loss_panel(losses: Losses) -> Panel:
    """The loss of each update, and its exponential average, which begins at 0.65."""
    at, values = np.array(losses, dtype=float).reshape(-1, 2).T
    smooth = np.array(smoothed_losses(losses))
    known = np.isfinite(values)
    curves = [
        Curve("each update", at[known], values[known]),
        Curve("smoothed, from 0.65 on", at, smooth, is_average=True),
    ]
    return Panel("loss of the batch", curves if known.any() else [], "no update yet")


def _rate_panel(rows: Rows) -> Panel:
    """The learning rate from 0 on: its usual decay is small."""
    return Panel("learning rate", [_curve(rows, "lr", "")], from_zero=True)


def _error_panel(rows: Rows) -> Panel:
    """Errors in percent; of networks that learn values the root of the mean squared error."""
    if any("train_error" in row for row in rows):
        return Panel("error, %", _split_curves(rows, "error", 100), is_capped=True)
    roots = [
        {**row, **{f"{s}_root": (row.get(f"{s}_loss") or np.nan) ** 0.5 for s in SPLITS}}
        for row in rows
    ]
    return Panel("root of the mean squared error", _split_curves(roots, "root", 1))


def _split_curves(rows: Rows, value: str, scale: float) -> list[Curve]:
    return [_curve(rows, f"{split}_{value}", label, scale) for split, label in SPLITS.items()]


def _curve(rows: Rows, column: str, label: str, scale: float = 1) -> Curve:
    """The finite values of a column, and for splits their moving average."""
    at = np.array([row["iteration"] for row in rows], dtype=float)
    values = scale * np.array([row.get(column, np.nan) for row in rows], dtype=float)
    known = np.isfinite(values)
    smooth = _moving_average(_learned(values[known])) if label and known.any() else None
    return Curve(label, at[known], values[known], smooth)


def _learned(values: np.ndarray) -> np.ndarray:
    """Values (n,) without the first, which was measured before anything was learned, if n > 3."""
    return values[1:] if len(values) > 3 else values


def _moving_average(values: np.ndarray) -> np.ndarray:
    """Average of each value (n,) and up to 7 before it."""
    sums = np.cumsum(values)
    sums[SMOOTHED_OVER:] -= sums[:-SMOOTHED_OVER].copy()
    return sums / np.minimum(np.arange(1, len(values) + 1), SMOOTHED_OVER)


def _draw(rows: Rows, path: Path, panels: Sequence[Panel]) -> Path:
    figure = new_figure(9.0, 3.2 * len(panels) + 0.4)
    for place, panel in enumerate(panels, start=1):
        axis = figure.add_subplot(len(panels), 1, place)
        _fill(axis, panel)
        if any(len(curve.at) for curve in panel.curves):
            _mark_changes(axis, rows)
            _add_time(axis, rows)
    return save_figure(figure, path)


def _fill(axis: Any, panel: Panel) -> None:
    """Draws the curves of a panel, or writes why there are none."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("iteration")
    axis.set_ylabel(panel.label)
    axis.grid(alpha=0.3)
    shown = [curve for curve in panel.curves if len(curve.at)]
    for curve in shown:
        _draw_curve(axis, curve)
    if any(curve.label for curve in shown):
        axis.legend(fontsize=8)
    if not shown:
        axis.text(0.5, 0.5, panel.missing, ha="center", va="center", transform=axis.transAxes)
    elif panel.from_zero:
        axis.set_ylim(bottom=0)
    elif panel.is_capped:
        axis.set_ylim(*_limits(np.concatenate([_learned(curve.values) for curve in shown])))


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value of the axis; 0 is always on it.

    Without negative values it ends at `CAP` times the mean, so that the first values, which are
    large, do not hide those that follow.
    """
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0:
        low, high = 1.1 * lowest, 1.1 * max(highest, 0.0)
        return low, high + 0.1 * (high - low)
    return 0.0, min(1.1 * highest, CAP * float(values.mean())) or 1.0


def _draw_curve(axis: Any, curve: Curve) -> None:
    marker = "o" if len(curve.at) <= FEW else ""
    if curve.is_average:
        axis.plot(curve.at, curve.values, "black", lw=1.8, label=curve.label)
        return
    colour = COLOURS.get(curve.label, OTHER_COLOUR)
    if curve.smooth is None:
        label = curve.label or None
        axis.plot(curve.at, curve.values, colour, lw=0.9, marker=marker, ms=4, label=label)
        return
    axis.plot(curve.at, curve.values, colour, lw=0.7, ls="--", marker=marker, ms=4, alpha=0.6)
    label = f"{curve.label} (smoothed; dashed: measured)"
    axis.plot(curve.at[-len(curve.smooth) :], curve.smooth, colour, lw=1.8, label=label)


def _mark_changes(axis: Any, rows: Rows) -> None:
    """A line with a word where warping, or the learning rate by more than half, was changed."""
    changes = [(before["iteration"], _change(before, row)) for before, row in pairwise(rows)]
    marked = [(iteration, words) for iteration, words in changes if words]
    for iteration, words in marked if len(marked) <= MOST_MARKS else ():
        axis.axvline(iteration, color="grey", lw=0.8, ls=":")
        where = axis.get_xaxis_transform()
        axis.text(iteration, 0.98, f" {words}", fontsize=7, va="top", transform=where)


def _change(before: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What was changed between two measurements; empty for nothing, or the usual decay."""
    words = []
    if before["warp"] != row["warp"]:
        words.append("warp on" if row["warp"] else "warp off")
    if not 0.5 < row["lr"] / max(before["lr"], 1e-30) < 2:
        words.append(f"lr {row['lr']:.2g}")
    return ", ".join(words)


def _add_time(axis: Any, rows: Rows) -> None:
    """The time that has passed, as a second axis at the top: minutes, or seconds if it is short."""
    unit, length_s = ("minutes", 60) if rows[-1]["seconds"] >= SHORT_SECONDS else ("seconds", 1)
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high and tick >= 0]
    at = [0.0, *(float(row["iteration"]) for row in rows)]
    times = np.interp(ticks, at, [0.0, *(row["seconds"] / length_s for row in rows)])
    top = axis.secondary_xaxis("top")
    top.set_xticks(ticks, [f"{value:.{1 if value < 10 else 0}f}" for value in times], fontsize=7)
    top.set_xlabel(unit, fontsize=8)
