"""Sections of a boundary map: ground-truth objects, and segments between thinned boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
from skimage.morphology import skeletonize

from retrace.evaluation.contingency import Contingency, count_block
from retrace.formats.label_values import compact


@dataclass(frozen=True)
class BoundarySection:
    """One section, all (Y, X): interior probability, ground-truth objects (0: boundary), and where
    ground truth is known (bool)."""

    interior: np.ndarray
    ground_truth: np.ndarray
    known: np.ndarray

    @property
    def has_objects(self) -> bool:
        """Whether the section has objects to score."""
        return bool((self.ground_truth[self.known] > 0).any())


@dataclass(frozen=True)
class ThresholdedSection:
    """A section whose boundary is where the interior probability is not above `threshold`."""

    section: BoundarySection
    threshold: float

    @cached_property
    def table(self) -> Contingency:
        """Segments between the thinned boundaries against ground-truth objects."""
        cut = segments_between_lines(self.section.interior > self.threshold)
        return count_block(cut, self.section.ground_truth, self.section.known)


def objects_of_section(labels: np.ndarray) -> np.ndarray:
    """Objects (Y, X) uint64: 4-connected components of each label of a section; 0 for label 0."""
    objects = cc3d.connected_components(compact(labels).astype(np.uint32), connectivity=4)
    return np.asarray(objects).astype(np.uint64)


def segments_between_lines(inside: np.ndarray) -> np.ndarray:
    """Segments (Y, X) uint64 between thinned boundaries, 0 on their lines.

    `inside` (Y, X) bool is False on boundaries.
    """
    lines = skeletonize(~inside)
    components = cc3d.connected_components((~lines).astype(np.uint8), connectivity=4)
    return np.asarray(components).astype(np.uint64)
