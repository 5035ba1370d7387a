"""How much of the ground truth was scored: scores of a part do not compare with those of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrace.formats.label_types import check_not_empty
from retrace.formats.placement import check_relative_place, is_smaller
from retrace.geometry import NmBox
from retrace.storage.volumes import Volume

SCORED, LABELLED = "scored_voxels", "label_voxels"
"""Keys in JSON: voxels (or nodes) that were scored, and those that have a label that counts."""


def is_partial(row: Mapping[str, Any]) -> bool:
    """Whether a result says that only a part of the labelled voxels was scored."""
    return LABELLED in row and row[SCORED] < row[LABELLED]


def coverage_text(row: Mapping[str, Any]) -> str:
    """The scored voxels in words; empty if the result does not say how many they are."""
    if LABELLED not in row:
        return ""
    scored, labelled = row[SCORED], row[LABELLED]
    if not is_partial(row):
        return f"all {labelled:,}"
    # Rounded down, so that a part is never 100 %.
    percent = scored * 1000 // labelled / 10
    return f"{scored:,} of {labelled:,} ({percent} %), ONLY A PART"


def total_coverage(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over entries, and in words as `coverage`; empty if an entry lacks its numbers."""
    rows = list(entries)
    if not rows or any(LABELLED not in row for row in rows):
        return {}
    total = {key: sum(row[key] for row in rows) for key in (SCORED, LABELLED)}
    return {**total, "coverage": coverage_text(total)}


def mask_warning(mask: Volume, ground_truth: NmBox) -> str | None:
    """That a mask covers only a part of what is scored; None if it covers all of it."""
    box = mask.box.to_nm(mask.voxel_size_nm)
    if box.contains(ground_truth):
        return None
    return (
        f"warning: the mask {mask.name} covers only {list(box.offset)} to {list(box.end)} nm "
        f"(z, y, x) of the labels from {list(ground_truth.offset)} to {list(ground_truth.end)} nm; "
        "voxels outside it do not count"
    )


def place_warning(labels: Volume, other: Volume) -> str | None:
    """That a smaller volume is taken to begin with the labels, because nothing states where it is.

    None where its place is known. DataError where it is not known and may be elsewhere.
    """
    for volume in (labels, other):
        check_not_empty(volume.name, volume.array.shape, "labels, segmentation or mask")
    is_assumed = (
        not other.is_placed and not any(labels.offset_nm) and is_smaller(other.place, labels.place)
    )
    if not is_assumed:
        check_relative_place(labels.place, other.place)
        return None
    return (
        f"warning: nothing states the position of {other.name}, which is smaller than the labels; "
        f"it is taken to begin with them. If it does not, {other.names.state_offset}"
    )


def partial_warning(rows: Mapping[str, Mapping[str, Any]], common: NmBox) -> str | None:
    """What to do about rows of a part; None if there are none. `common`: what all rows cover."""
    partial = [name for name, row in rows.items() if is_partial(row)]
    if not partial:
        return None
    ends = zip(common.offset, common.end, strict=True)
    region = ",".join(f"{begin}:{end}" for begin, end in ends)
    remedy = (
        "no region is covered by all of them: score them one by one"
        if common.is_empty
        else f"score all of them where they overlap: --roi-nm={region}"
    )
    return (
        f"warning: {', '.join(partial)} covers only a part of the labelled voxels, so its scores "
        f"are not comparable with scores of other voxels; {remedy}"
    )
