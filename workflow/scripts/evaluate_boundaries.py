"""Scores boundary maps: thresholds chosen on validation sections, metrics of the test sections.

    evaluate_boundaries.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
                           --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, validation, test), `array` of the
prediction, whose channel 0 is the inside of cells, `grow_boundary` of the network, and `thresholds`
[lowest, highest, step].
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from retrace.config.schema import check
from retrace.errors import run
from retrace.evaluation.boundary_maps import plot_boundary_scores, score_boundary_maps
from retrace.evaluation.coverage import coverage_text
from retrace.evaluation.voxelwise import open_predictions, parse_args
from retrace.files import write_json
from retrace.planning.score_settings import BoundaryMapSettings
from retrace.segmentation.lut import threshold_list
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import recording_opened


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the evaluation and its plot; `argv` without the program's name."""
    begun, args = time.monotonic(), parse_args(argv, __doc__)
    settings = check(BoundaryMapSettings, args.settings, "settings of the evaluation")
    dataset, grow = settings.dataset, settings.grow_boundary
    files = settings.array, args.prediction, args.masks
    with recording_opened() as opened:
        scores = score_boundary_maps(
            open_predictions(dataset, "validation", *files),
            open_predictions(dataset, "test", *files),
            threshold_list(*settings.thresholds),
            grow.steps if grow else None,
        )
    origin = origin_of_opened(opened, [], settings.plain(), time.monotonic() - begun)
    plot_boundary_scores(scores, args.plot)
    write_json(args.output, {"dataset": dataset.name, **scores.as_dict(), "origin": origin})
    for name in scores.test:
        values = ", ".join(f"{metric} {v:.4f}" for metric, v in scores.at_chosen(name).items())
        print(
            f"{name}: {values}; scored voxels: {coverage_text(scores.coverage[name])}", flush=True
        )


if __name__ == "__main__":
    run(main)
