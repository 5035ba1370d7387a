"""Compares every network of a dataset in one table: scores, parameters, work, seconds, memory.

    compare.py --settings JSON --evaluation N=evaluation.json ... --model N=model.safetensors ...
               --history N=training.json ... --prediction N=prediction.manifest.json ...
               --masks V=MASK ... --published config/published/NAME.yaml
               --output NAME.json --text NAME.md --plot NAME.png

The settings are one JSON object: `dataset` (name, volumes, test), `planar`, `families` (family of
each network), `refused` (network: why it cannot run), `segmentations` ({name: {volume: source}},
made by others), and `published` (which published scores are shown, or null).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.config.yaml_files import read_yaml
from retrace.errors import run
from retrace.evaluation.comparison import (
    BOUNDARY_SCORES,
    NOTE,
    SEGMENT_SCORES,
    combined,
    comparison_table,
    footnote,
    main_scores,
    plot_comparison,
    published_rows,
)
from retrace.evaluation.comparison_rows import network_row, other_row
from retrace.evaluation.scores import CONVENTION
from retrace.files import atomic_write, write_json
from retrace.planning.score_settings import ComparisonSettings


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    by_name = ["evaluation", "model", "history", "prediction", "masks"]
    add_job(parser, files_by_name=by_name, optional_file=["published"])
    parser.add_argument("--threads", type=int, default=1)
    for name in ("output", "text", "plot"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    return parse_job(parser, argv)


def own_rows(
    args: argparse.Namespace, settings: ComparisonSettings, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each network that was evaluated, and, of segments, for those by others."""
    rows = [
        network_row(
            name,
            settings.families[name],
            metrics,
            evaluation=evaluation,
            model=args.model[name],
            history=args.history[name],
            prediction=args.prediction[name],
        )
        for name, evaluation in args.evaluation.items()
    ]
    if not settings.planar:
        rows += [
            other_row(name, sources, settings.dataset, args.masks, args.threads)
            for name, sources in settings.segmentations.items()
        ]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the table as JSON, text and picture; `argv` without the program's name."""
    args = parse_args(argv)
    settings = check(ComparisonSettings, args.settings, "settings of the comparison")
    published, others = None, []
    metrics = BOUNDARY_SCORES if settings.planar else SEGMENT_SCORES
    _, main_score = main_scores(metrics)
    if args.published and settings.published:
        content = read_yaml(args.published)
        others = published_rows(content, settings.published, metrics)
        published = {key: content[key] for key in ("source", "convention")}
        published["differs"] = settings.published.differs
    own = own_rows(args, settings, metrics)
    rows = combined(own, others, main_score, published["differs"] if published else None)
    result = {
        "dataset": settings.dataset.name,
        "note": NOTE,
        "convention": None if settings.planar else CONVENTION,
        "rows": rows,
        "published": published,
        "refused": settings.refused,
    }
    lines = [comparison_table(rows), *([f"\n{footnote(published)}"] if published else [])]
    lines += [f"\nnot run: {name}: {reason}" for name, reason in settings.refused.items()]
    write_json(args.output, result)
    atomic_write(args.text, "\n".join(lines) + "\n")
    plot_comparison(combined(own, [], main_score, None), metrics, args.plot)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    run(main)
