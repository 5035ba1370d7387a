"""Scores of boundary maps, section by section: pixel error; Rand and information after thinning.

Arganda-Carreras et al. 2015 (Frontiers in Neuroanatomy 9:142), the metrics of the ISBI 2012
challenge: boundaries are thinned to lines, and only voxels inside true objects count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from skimage.morphology import skeletonize

from retrace.evaluation.contingency import Contingency, count_block
from retrace.formats.label_values import compact

METRICS = ("pixel_error", "v_rand", "v_info")
CONVENTION = (
    "means over sections. pixel_error: share of voxels on the wrong side of the threshold. Then "
    "the boundary, voxels whose interior probability is not above the threshold, is thinned to "
    "lines; segments are the components of 4 neighbours between them, voxels of lines each a "
    "segment of its own; voxels of true boundaries are ignored, true objects are components of 4 "
    "neighbours. "
    "v_rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2), v_info = 2 I(S, T) / (H(S) + H(T)); "
    "1 is perfect. Each metric has its own threshold, the best one on the validation sections"
)
"""The exact meaning of every number, written into each evaluation."""


@dataclass(frozen=True)
class Section:
    """One section: interior probability and true objects (0: boundary), both (Y, X).

    `known`: where the truth counts.
    """

    interior: np.ndarray
    truth: np.ndarray
    known: np.ndarray


def true_objects(labels: np.ndarray) -> np.ndarray:
    """Objects of a section (Y, X): components of 4 neighbours of each label, 0 for label 0."""
    found = cc3d.connected_components(compact(labels).astype(np.uint32), connectivity=4)
    return np.asarray(found).astype(np.uint64)


def segments(inside: np.ndarray) -> np.ndarray:
    """Segments (Y, X) uint64 between thinned boundaries, 0 on their lines; `inside` bool."""
    lines = skeletonize(~inside)
    found = cc3d.connected_components((~lines).astype(np.uint8), connectivity=4)
    return np.asarray(found).astype(np.uint64)


def pixel_error(section: Section, threshold: float) -> float:
    """Share of known voxels on the wrong side of `threshold`."""
    wrong = (section.interior > threshold) != (section.truth > 0)
    return float(wrong[section.known].mean())


def v_rand(table: Contingency) -> float:
    """Foreground-restricted Rand score of a table whose segment 0 is single voxels."""
    single = table.segments == 0
    counts = table.counts.astype(np.float64)
    together = float(np.where(single, counts, counts**2).sum())
    in_segments = float(np.where(single, counts, counts * table.segment_totals).sum())
    in_truth = float((counts * table.truth_totals).sum())
    return together / (0.5 * in_segments + 0.5 * in_truth)


def v_info(table: Contingency) -> float:
    """Foreground-restricted information score of a table whose segment 0 is single voxels."""
    voxels = table.voxels
    share = table.counts / voxels
    single = table.segments == 0
    of_segment = np.where(single, 1, table.segment_totals) / voxels
    in_pair = np.where(single, 1, table.counts) / voxels
    of_truth = table.truth_totals / voxels
    information = float((share * np.log2(in_pair / (of_segment * of_truth))).sum())
    entropies = -float((share * (np.log2(of_segment) + np.log2(of_truth))).sum())
    return 2 * information / entropies if entropies else 1.0


def score_section(section: Section, thresholds: Sequence[float]) -> np.ndarray:
    """The three metrics at each threshold, (thresholds, 3)."""
    rows = []
    for threshold in thresholds:
        cut = segments(section.interior > threshold)
        table = count_block(cut, section.truth, section.known)
        rows.append((pixel_error(section, threshold), v_rand(table), v_info(table)))
    return np.array(rows)


def score_sections(sections: Iterable[Section], thresholds: Sequence[float]) -> np.ndarray:
    """The mean of the metrics over sections that hold an object, (thresholds, 3).

    ValueError where there is none.
    """
    found = [score_section(section, thresholds) for section in with_objects(sections)]
    if not found:
        raise ValueError("no section holds an object to be scored")
    return np.asarray(np.mean(found, axis=0))


def with_objects(sections: Iterable[Section]) -> Iterator[Section]:
    """Sections that have something to be scored."""
    return (s for s in sections if (s.truth[s.known] > 0).any())


def best_thresholds(thresholds: Sequence[float], scores: np.ndarray) -> dict[str, float]:
    """Per metric the threshold at which it is best: the least error, the highest score."""
    signs = (-1, 1, 1)
    return {
        metric: float(thresholds[int(np.argmax(sign * scores[:, column]))])
        for column, (metric, sign) in enumerate(zip(METRICS, signs, strict=True))
    }
