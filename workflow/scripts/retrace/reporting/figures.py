"""Interactive curves as the JSON that plotly draws in a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retrace.config.seamless_network import OBSERVED
from retrace.evaluation.plots import IN_PLANE
from retrace.reporting.tables import METRICS

Trace = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#a08000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
REFERENCES = {
    "untrained_watershed": ("untrained watershed", "x"),
    "best_possible": ("best possible", "triangle-up"),
    "one_segment": ("one segment", "square"),
    "fragments": ("fragments", "circle-open"),
}
"""Results that the curves are compared with: their names and marks."""
ALIGNED = {
    "error_px": "distance from the true place, px",
    "correlation": "correlation of aligned pairs",
}
"""How well pairs of sections are aligned; the first that is known has a panel of its own."""
NO_TERMS = {"iteration", "loss", "threshold", *METRICS, *ALIGNED, *OBSERVED}
"""Columns of measurements that are no terms of the loss."""
MARKED = 60
"""Curves of at most this number of points have a mark at each."""
PANEL_HEIGHT = 260
"""Pixels of a panel with its axis."""


@dataclass(frozen=True)
class PageFigure:
    """A figure: traces and layout of plotly, its height in pixels, and a caption."""

    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    caption: str
    height: int = 380
    name: str = field(default="", kw_only=True)
    """Class of its element, by which tests and styles know it."""

    def as_json(self) -> str:
        """What the page contains; numbers that JSON lacks are gaps."""
        content = {"data": _plain(self.traces), "layout": _plain(self.layout)}
        # In a script element, </ would end it, and <!-- would hide its end.
        return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    """Values without infinities and NaN, which are no JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def curve(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, **more: Any) -> Trace:
    """A line; None in `y` is a gap."""
    line = {"color": colour, "width": 2, **more.get("line", {})}
    shown = {"type": "scatter", "mode": "lines", "name": name, **more}
    return {**shown, "line": line, "x": list(x), "y": list(y)}


def mark(x: Any, y: Any, name: str, colour: str, symbol: str, **more: Any) -> Trace:
    """A single point, marked with one of plotly's symbols."""
    looks = {"symbol": symbol, "size": 11, "color": colour, "line": {"width": 1, "color": "#fff"}}
    if symbol in ("x", "circle-open"):
        looks["line"] = {"width": 1, "color": colour}
    return {
        **{"type": "scatter", "mode": "markers", "name": name, "marker": looks},
        **{"x": [x], "y": [y], "cliponaxis": False, **more},
    }


def training_content(content: Any) -> tuple[Mapping[str, Any], PageFigure]:
    """The content of training.json, and its learning curve."""
    figure = learning_figure(content)
    return {**content, "iterations": int(content["iterations"])}, figure


def learning_figure(content: Mapping[str, Any]) -> PageFigure:
    """The loss and its terms at each recorded iteration, and what validation measured.

    `content`: training.json. Losses have a log scale if all are positive; other measurements, such
    as the VOI, have a panel of their own.
    """
    history, validation = content["history"], content.get("validation") or {}
    traces = _loss_traces(history, "", COLOURS)
    measured = validation.get("rows") or []
    traces += _loss_traces(measured, "validation ", COLOURS[3:])
    traces += _test_passes(content.get("learning_curve", {}).get("test", {}))
    positive = history and all(v is None or v > 0 for trace in traces for v in trace["y"])
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "iteration"}},
        "yaxis": {"title": {"text": "loss"}, "type": "log" if positive else "linear"},
        "hovermode": "x unified",
        "hoverdistance": -1,
    }
    caption = "Training: the loss and its terms. " + _validation_text(history, validation)
    title, scores = _second_panel(measured)
    if scores:
        traces += [
            _measured(measured, f"validation {words}", name, colour) | {"yaxis": "y2"}
            for (name, words), colour in zip(scores.items(), COLOURS, strict=False)
        ]
        layout["yaxis"]["domain"] = [0.42, 1]
        layout["yaxis2"] = {"title": {"text": title}, "domain": [0, 0.34]}
        layout["xaxis"]["anchor"] = "y2"
    if "kept" in validation:
        layout["shapes"] = [_vertical(validation["kept"])]
    return PageFigure(traces, layout, caption, 560 if scores else 420, name="learning")


def _second_panel(measured: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """The title of the panel below the losses, and what it shows: names in rows, and in words."""
    names = {name for row in measured for name, value in row.items() if value is not None}
    bits = [name for name in (measured[0] if measured else {}) if _is_score(name)]
    if bits:
        return "VOI, bits", {name: METRICS[name].heading for name in bits}
    known = [name for name in ALIGNED if name in names]
    return (known[0].replace("_", ", "), {known[0]: ALIGNED[known[0]]}) if known else ("", {})


def _is_score(name: str) -> bool:
    return name in METRICS and METRICS[name].unit == "bits"


def _test_passes(columns: Mapping[str, Sequence[Any]]) -> list[Trace]:
    """ZNN's own measurements on other patches of the validation split each time, as points."""
    look = {"mode": "markers", "marker": {"size": 6, "symbol": "diamond-open"}}
    names = {"err": "test pass, err", "cls": "test pass, cls"}
    return [
        curve(columns["it"], columns[key], words, colour, **look)
        for (key, words), colour in zip(names.items(), COLOURS[6:], strict=True)
        if columns.get("it") and key in columns
    ]


def _vertical(x: float) -> dict[str, Any]:
    """A vertical line through all panels."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": "#999", "width": 1, "dash": "dash"}}


def _validation_text(history: Sequence[Mapping[str, Any]], validation: Mapping[str, Any]) -> str:
    if validation.get("rows"):
        kept = validation.get("kept")
        return f"The weights are those of iteration {kept:,} (dashed)." if kept else ""
    columns = {name for row in history for name in row}
    if any(name.startswith("validation") for name in columns):
        return ""
    return "There are no validation data: nothing was measured on volumes outside the training."


def _loss_traces(
    rows: Sequence[Mapping[str, Any]], prefix: str, colours: Sequence[str]
) -> list[Trace]:
    """Curves of the loss and of its terms."""
    if not rows:
        return []
    name = f"{prefix or 'training '}loss"
    first = _measured(rows, name, "loss", colours[0]) | {"legendrank": 1}
    terms = [key for key in rows[0] if _is_term(key, rows)]
    if len(terms) == 1 and _values(rows, terms[0]) == _values(rows, "loss"):
        terms = []
    return [
        first,
        *(
            _measured(rows, f"{prefix}{key}", key, colour, line={"width": 1, "dash": "dot"})
            for key, colour in zip(terms, [*colours[1:], *COLOURS] * len(terms), strict=False)
        ),
    ]


def _measured(
    rows: Sequence[Mapping[str, Any]], name: str, key: str, colour: str, **more: Any
) -> Trace:
    """The curve of one value; of few measurements, each with a mark."""
    mode = "lines+markers" if len(rows) <= MARKED else "lines"
    look = {"mode": mode, "marker": {"size": 5}, **more}
    return curve(_values(rows, "iteration"), _values(rows, key), name, colour, **look)


def _is_term(key: str, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column of the history is a term of the loss."""
    values = [row.get(key) for row in history]
    return key not in NO_TERMS and all(isinstance(v, float | None) for v in values)


def _values(rows: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
    return [row.get(key) for row in rows]


def threshold_figures(
    entries: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, float]
) -> Iterator[PageFigure]:
    """The scores of each entry of an evaluation at every threshold; none without such a curve.

    `chosen`: by metric the chosen threshold, where each metric has its own.
    """
    curves = {name: entry for name, entry in entries.items() if entry.get("curve")}
    if all(set(IN_PLANE) <= entry["curve"][0].keys() for entry in curves.values()) and curves:
        yield _plane(curves)
    shown = list(dict.fromkeys(key for entry in curves.values() for key in entry["curve"][0]))
    metrics = [key for key in shown if key in METRICS and METRICS[key].in_tables]
    panels = [metric for metric in metrics if metric not in IN_PLANE]
    if panels:
        yield _against_threshold(curves, panels, chosen)


def _plane(entries: Mapping[str, Mapping[str, Any]]) -> PageFigure:
    """VOI split against VOI merge, with the chosen threshold and references."""
    traces: list[Trace] = []
    for (name, entry), colour in zip(entries.items(), COLOURS * len(entries), strict=False):
        rows = entry["curve"]
        text = [f"threshold {row['threshold']:g}, VOI {row['voi_sum']:.3f}" for row in rows]
        x, y = (_values(rows, key) for key in IN_PLANE)
        look: dict[str, Any] = {
            "mode": "lines+markers",
            "marker": {"size": 4},
            "hovertemplate": PLACE,
        }
        traces.append(curve(x, y, name, colour, text=text, legendgroup=name, **look))
        traces += _marks(name, entry, colour)
    layout = {
        "xaxis": {"title": {"text": "VOI split, bits"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "VOI merge, bits"}, "rangemode": "tozero"},
        "hovermode": "closest",
    }
    caption = "Splits against merges at each threshold; the star is the chosen one."
    return PageFigure(traces, layout, caption, 420, name="plane")


PLACE = "%{text}<br>split %{x:.3f}, merge %{y:.3f}<extra>%{fullData.name}</extra>"
"""What appears under the mouse in the plane of splits and merges."""


def _marks(name: str, entry: Mapping[str, Any], colour: str) -> Iterator[Trace]:
    """The chosen threshold and the references of one entry."""
    results = {"": ("chosen threshold", "star")} | REFERENCES
    for key, (words, symbol) in results.items():
        result = entry.get(key, {}) if key else entry
        if all(result.get(part) is not None for part in IN_PLANE):
            x, y = (result[part] for part in IN_PLANE)
            text = [f"{words}, VOI {result['voi_sum']:.3f}"]
            place = {"text": text, "hovertemplate": PLACE, "legendgroup": name}
            yield mark(x, y, f"{name}: {words}", colour, symbol, **place)


def _against_threshold(
    entries: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], chosen: Mapping[str, float]
) -> PageFigure:
    """A panel for each metric: every entry against the threshold."""
    traces: list[Trace] = []
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "threshold"}, "anchor": _axis(len(metrics))}
    }
    for number, metric in enumerate(metrics, 1):
        top = 1 - (number - 1) / len(metrics)
        domain = [top - 0.88 / len(metrics), top]
        title = {"title": {"text": METRICS[metric].heading}, "domain": domain}
        layout[f"yaxis{_suffix(number)}"] = {**title, "rangemode": "tozero"}
        for (name, entry), colour in zip(entries.items(), COLOURS * len(entries), strict=False):
            threshold = chosen.get(metric, entry.get("threshold"))
            traces += _panel(name, entry, metric, threshold, colour, number)
    caption = (
        "Scores against the threshold, which was chosen on validation entries (star); dotted: the "
        "untrained watershed."
    )
    height = 60 + PANEL_HEIGHT * len(metrics)
    return PageFigure(
        traces,
        {**layout, "hovermode": "x", "hoverdistance": -1},
        caption,
        height,
        name="thresholds",
    )


def _suffix(number: int) -> str:
    return "" if number == 1 else str(number)


def _axis(number: int) -> str:
    return f"y{_suffix(number)}"


def _panel(
    name: str,
    entry: Mapping[str, Any],
    metric: str,
    threshold: float | None,
    colour: str,
    number: int,
) -> Iterator[Trace]:
    """The curve of one entry in one panel, its chosen threshold, and the untrained watershed."""
    axis: Trace = {"yaxis": _axis(number), "legendgroup": name, "showlegend": number == 1}
    hover = {"hovertemplate": f"{METRICS[metric].heading} %{{y:.3f}}<extra>{name}</extra>"}
    x = _values(entry["curve"], "threshold")
    yield curve(x, _values(entry["curve"], metric), name, colour, **axis, **hover)
    hidden: Trace = axis | {"showlegend": False}
    if threshold is not None and entry.get(metric) is not None:
        yield mark(threshold, entry[metric], f"{name}: chosen", colour, "star", **hidden, **hover)
    untrained = entry.get("untrained_watershed", {}).get(metric)
    if untrained is not None and x:
        look = hidden | {"line": {"dash": "dot", "width": 1}}
        ends = ([x[0], x[-1]], [untrained, untrained])
        yield curve(*ends, f"{name}: untrained watershed", colour, **look)
