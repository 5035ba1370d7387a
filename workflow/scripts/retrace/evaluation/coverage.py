"""How much of the ground truth was scored: scores of a part do not compare with those of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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


def place_warning(labels: Volume, others: Iterable[Volume]) -> str | None:
    """That nothing states how volumes lie on the labels; None if that is known of all.

    Without positions, both begin at 0, which is known to be right only if they have one extent.
    """
    ours = labels.box.to_nm(labels.voxel_size_nm)
    pairs = [
        (labels, other)
        for other in others
        if not (labels.is_placed and other.is_placed)
        and other.box.to_nm(other.voxel_size_nm) != ours
    ]
    unplaced = dict.fromkeys(v.name for pair in pairs for v in pair if not v.is_placed)
    if not unplaced:
        return None
    return (
        f"warning: nothing states the position of {', '.join(unplaced)}, taken as 0, and the labels"
        f" {labels.name} have another extent than {', '.join(other.name for _, other in pairs)}; "
        "state the positions in the files (attribute `offset`, nm, z y x), or cut both to the same "
        "voxels"
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
