"""One experiment of the report: its sentences, pictures and scores, read from its results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.config.view_model import ViewLayerSource
from retrace.files import read_parsed
from retrace.planning.report_settings import ExperimentSettings
from retrace.reporting.drawings import embedded, learning_curve
from retrace.reporting.methods import methods_paragraph
from retrace.viewing.layers import open_layers
from retrace.viewing.picture import draw_sections

SHOWN = ("raw", "labels", "affinities", "lsds", "boundary", "segments")
"""Kinds of layers in the pictures."""
PANEL_ROW = (1400, 350)
"""Pixels of a row of four panels (width, height)."""


@dataclass(frozen=True)
class ReportedExperiment:
    """What the page shows of an experiment. `picture` and `plot` are data URLs, `curve` an SVG."""

    name: str
    volume: str
    methods: str
    deviations: Sequence[str]
    picture: str
    curve: str
    plot: str | None
    published: Sequence[Mapping[str, Any]]
    """Rows of the paper's numbers next to ours."""
    convention: str | None
    """What the scores mean."""
    history: Mapping[str, Any]
    """Content of training.json."""
    entries: Mapping[str, Mapping[str, Any]]
    """Scores by entry of the evaluation."""


def read_experiment(settings: ExperimentSettings) -> ReportedExperiment:
    """An experiment with its results; DataError if a file is missing or damaged."""
    folder = Path(settings.folder)
    history, curve = read_parsed(folder / "training.json", _history)
    evaluation, entries = read_parsed(folder / "evaluation.json", _scores)
    plot = folder / "evaluation.png"
    return ReportedExperiment(
        name=settings.name,
        volume=settings.volume,
        methods=methods_paragraph(settings, history, evaluation),
        deviations=list(deviations(settings, history["iterations"])),
        picture=_sections(settings.layers),
        curve=curve,
        plot=embedded(plot) if plot.is_file() else None,
        published=_published_rows(folder, settings.network.name),
        convention=evaluation.get("convention"),
        history=history,
        entries=entries,
    )


def _history(content: Any) -> tuple[Mapping[str, Any], str]:
    """The content of training.json, and its learning curve as a picture."""
    rows = content["history"]
    picture = learning_curve([row["iteration"] for row in rows], [row["loss"] for row in rows])
    return {**content, "iterations": int(content["iterations"])}, picture


def _scores(content: Any) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """The content of evaluation.json, and its scores by entry."""
    return {**content}, {str(name): {**scores} for name, scores in content["volumes"].items()}


def deviations(settings: ExperimentSettings, iterations: int) -> Iterator[str]:
    """Sentences on how a run of `iterations` differs from its network's recipe."""
    recipe = settings.recipe_iterations
    if recipe and iterations != recipe:
        yield f"{iterations:,} iterations of {recipe:,}"
    if settings.network.name.endswith("_small"):
        yield "the small form of the network, for computers without a GPU"


def _sections(layers: Sequence[ViewLayerSource]) -> str:
    """The central sections of the layers that exist."""
    opened, _ = open_layers([layer for layer in layers if layer.kind in SHOWN])
    rows = -(-len(opened) // 4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw_sections(opened, path, (PANEL_ROW[0], PANEL_ROW[1] * rows))
        return embedded(path)


def _published_rows(folder: Path, network: str) -> list[Mapping[str, Any]]:
    """The paper's numbers next to ours, if `reproduce_DATASET` compared them."""
    path = folder.parent / "reproduction.json"
    if not path.is_file():
        return []
    return read_parsed(
        path, lambda content: [row for row in content["rows"] if row["network"] == network]
    )
