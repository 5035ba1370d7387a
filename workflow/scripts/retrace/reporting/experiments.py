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
from retrace.reporting.dates import file_date
from retrace.reporting.drawings import embedded
from retrace.reporting.errors import ShownError, read_errors
from retrace.reporting.figures import PageFigure, threshold_figures, training_content
from retrace.reporting.methods import methods_paragraph
from retrace.viewing.layers import open_layers
from retrace.viewing.picture import draw_sections

SHOWN = ("raw", "labels", "affinities", "lsds", "boundary", "segments")
"""Kinds of layers in the pictures."""
PANEL_ROW = (1400, 350)
"""Pixels of a row of four panels (width, height)."""


@dataclass(frozen=True)
class ReportedExperiment:
    """What the page shows of an experiment. `picture` and `plot` are data URLs."""

    name: str
    dataset: str
    network: str
    volume: str
    methods: str
    deviations: Sequence[str]
    picture: str
    curves: Sequence[PageFigure]
    plot: str | None
    """The plot of the evaluation, if there are no curves that show the same."""
    errors: Sequence[ShownError] | None
    """The largest errors; None if they were not listed."""
    published: Sequence[Mapping[str, Any]]
    """Rows of the paper's numbers next to ours."""
    convention: str | None
    """What the scores mean."""
    threshold: float | None
    finished: str
    """When the evaluation was written."""
    history: Mapping[str, Any]
    """Content of training.json."""
    origin: Mapping[str, Any]
    """What the evaluation was computed from, and its cost."""
    entries: Mapping[str, Mapping[str, Any]]
    """Scores by entry of the evaluation."""


def read_experiment(settings: ExperimentSettings) -> ReportedExperiment:
    """An experiment with its results; DataError if a file is missing or damaged."""
    folder = Path(settings.folder)
    history, learning = read_parsed(folder / "training.json", training_content)
    evaluation, entries = read_parsed(folder / "evaluation.json", _scores)
    thresholds = list(threshold_figures(entries, evaluation.get("thresholds", {})))
    plot = folder / "evaluation.png"
    return ReportedExperiment(
        name=settings.name,
        dataset=settings.dataset.name,
        network=settings.network.name,
        volume=settings.volume,
        methods=methods_paragraph(settings, history, evaluation),
        deviations=list(deviations(settings, history["iterations"])),
        picture=_sections(settings.layers),
        curves=[learning, *thresholds],
        plot=embedded(plot) if plot.is_file() and not thresholds else None,
        errors=read_errors(folder, settings.test_layers),
        published=_published_rows(folder, settings.network.name),
        convention=evaluation.get("convention"),
        threshold=evaluation.get("threshold"),
        finished=file_date(folder / "evaluation.json"),
        history=history,
        origin=evaluation.get("origin", {}),
        entries=entries,
    )


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
