"""Scores an aligned stack and writes evaluation.json with its table and plots."""

from __future__ import annotations

import json
import time
from pathlib import Path

from retrace.alignment.aligned_stack import ALIGNED, FIELD
from retrace.alignment.metrics import alignment_table
from retrace.alignment.scoring import (
    KnownDistortion,
    Scorer,
    before_after,
    plot_scores,
    score_stack,
)
from retrace.files import atomic_write
from retrace.planning.align_settings import ScoreAlignmentSettings
from retrace.replacement import declare_with
from retrace.storage.images import open_image
from retrace.storage.manifest import check_manifest
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import open_volume, recording_opened

PICTURES_AND_TABLE = ("alignment.png", "before_after.png", "alignment.txt")
"""Files next to the scores, which are replaced with them."""


def evaluate_alignment(
    settings: ScoreAlignmentSettings, aligned: Path, ground_truth: Path | None, output: Path
) -> str:
    """Writes `output`, and next to it alignment.txt, alignment.png and before_after.png.

    `ground_truth`: the store of the known distortion, if there is one. Returns the table.
    """
    begin = time.monotonic()
    manifest = check_manifest(aligned)
    folder = output.parent
    declare_with(output, *(folder / name for name in PICTURES_AND_TABLE))
    with recording_opened() as read:
        sections = open_image(settings.sections)
        distortion = KnownDistortion.open(ground_truth, sections) if ground_truth else None
        scorer = Scorer(
            sections, open_volume(aligned, ALIGNED), open_volume(aligned, FIELD), distortion
        )
        depth = sections.box.shape[0]
        held_out_from = depth - int(depth * settings.test_fraction)
        scores = score_stack(scorer, held_out_from)
        atomic_write(folder / "alignment.png", plot_scores(scores))
        atomic_write(folder / "before_after.png", before_after(scorer))
    table = alignment_table(scores)
    atomic_write(folder / "alignment.txt", table)
    content = {
        "dataset": settings.dataset,
        "network": settings.network,
        "voxel_size_nm": list(sections.voxel_size_nm),
        "held_out_from": held_out_from,
        "megapixels_per_second": manifest.get("megapixels_per_second"),
        **scores,
        "origin": origin_of_opened(read, [], settings.plain(), time.monotonic() - begin),
    }
    atomic_write(output, json.dumps(content, indent=1) + "\n")
    return table
