"""Networks of the report that align sections: curves, scores and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.files import read_parsed
from retrace.planning.report_settings import AlignmentExperiment
from retrace.reporting.dates import file_date
from retrace.reporting.drawings import embedded
from retrace.reporting.figures import PageFigure, training_content


@dataclass(frozen=True)
class ReportedAlignment:
    """What the page shows of an alignment. `pictures` are data URLs."""

    name: str
    methods: str
    finished: str
    """When the evaluation was written."""
    curves: Sequence[PageFigure]
    scores: str
    """The table alignment.txt."""
    pictures: Sequence[str]
    history: Mapping[str, Any]
    """The content of training.json."""
    origin: Mapping[str, Any]
    """Of evaluation.json: what the scores were computed from, and how long it took."""


def read_alignment(settings: AlignmentExperiment) -> ReportedAlignment:
    """An alignment with its results; DataError if a file is missing or damaged."""
    folder = Path(settings.folder)
    history, learning = read_parsed(folder / "training.json", training_content)
    evaluation = folder / "evaluation.json"
    return ReportedAlignment(
        name=settings.name,
        methods=(
            f"The network {settings.network} of the family seamless was trained on stacks of "
            f"{settings.dataset} for {history['iterations']:,} iterations, and aligned all its "
            "sections."
        ),
        finished=file_date(evaluation),
        curves=[learning],
        scores=(folder / "alignment.txt").read_text(),
        pictures=[embedded(folder / name) for name in ("alignment.png", "before_after.png")],
        history=history,
        origin=read_parsed(evaluation, lambda content: {**content.get("origin", {})}),
    )
