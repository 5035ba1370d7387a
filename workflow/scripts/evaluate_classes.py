"""Scores classes of voxels: error and negative log-likelihood of the test entries.

    evaluate_classes.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
                        --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, test), and `grow_boundary`,
`labels_are_classes` and `n_lab` of the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from retrace.config.schema import check
from retrace.elektronn.architecture import HEAD
from retrace.errors import run
from retrace.evaluation.class_maps import ClassMap, plot_class_maps
from retrace.evaluation.class_tally import ClassTally
from retrace.evaluation.classes import CONVENTION, class_scores
from retrace.evaluation.coverage import coverage_text
from retrace.evaluation.dataset import open_raw
from retrace.evaluation.voxelwise import open_predictions, parse_args
from retrace.files import write_json
from retrace.planning.score_settings import ClassMapSettings
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import recording_opened


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the evaluation and its picture; `argv` without the program's name."""
    begun, args = time.monotonic(), parse_args(argv, __doc__)
    settings = check(ClassMapSettings, args.settings, "settings of the evaluation")
    dataset, classes = settings.dataset, settings.n_lab
    with recording_opened() as opened:
        maps = [
            ClassMap(
                scored,
                open_raw(dataset, scored.entry),
                classes,
                settings.labels_are_classes,
                settings.grow_boundary,
            )
            for scored in open_predictions(dataset, "test", HEAD, args.prediction, args.masks)
        ]
        tallies = {one.scored.name: one.tally() for one in maps}
    scores = {
        one.scored.name: {**class_scores(tallies[one.scored.name]), **one.scored.coverage()}
        for one in maps
    }
    content = {
        "dataset": dataset.name,
        "convention": CONVENTION,
        "volumes": scores,
        "all": class_scores(sum(tallies.values(), ClassTally(classes))),
        "origin": origin_of_opened(opened, [], settings.plain(), time.monotonic() - begun),
    }
    plot_class_maps(maps, args.plot)
    write_json(args.output, content)
    for name, one in scores.items():
        print(
            f"{name}: error {one['error']:.4f}, NLL {one['nll']:.4f}; from the frequencies of the "
            f"classes alone {one['error_of_commonest']:.4f} and {one['nll_of_shares']:.4f}; "
            f"scored voxels: {coverage_text(one)}",
            flush=True,
        )


if __name__ == "__main__":
    run(main)
