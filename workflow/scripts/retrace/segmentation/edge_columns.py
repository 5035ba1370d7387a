"""What the step of edges stores: the score at which each merges, or features for a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retrace.geometry import VoxelBox
from retrace.planning.segment_settings import SegmentationSettings
from retrace.segmentation.agglomerate import region_graph
from retrace.segmentation.edge_features import (
    CONTACT_NAMES,
    contact_features,
    fragment_features,
    fragment_names,
)
from retrace.segmentation.image_channels import image_channels
from retrace.segmentation.inputs import SegmentationInputs
from retrace.segmentation.region_graph import EDGE_FEATURES, EDGES, FRAGMENT_FEATURES, SCORES
from retrace.storage.volumes import Volume

Columns = dict[str, np.ndarray]
"""Lists of a block by name: for each of its edges, or each of its fragments, in ascending order."""


@dataclass(frozen=True)
class BlockFragments:
    """The fragments of a block and around it, and the affinities (C, Z, Y, X) there.

    `compact` (Z, Y, X): rows of `ids`, which begin with 0. The block's own ids are above `lowest`
    and at most `highest`.
    """

    block: VoxelBox
    with_context: VoxelBox
    affinities: np.ndarray
    compact: np.ndarray
    ids: np.ndarray
    lowest: int
    highest: int

    def own(self, edges: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
        """The edges of the block, (E, 2) uint64, sorted, and their values.

        `edges` (E, 2) are between compact ids, u < v. An edge belongs to the block of its smaller
        id.
        """
        named = self.ids[edges]
        own = np.flatnonzero((named[:, 0] > self.lowest) & (named[:, 0] <= self.highest))
        order = own[np.lexsort((named[own, 1], named[own, 0]))]
        return (named[order], *(value[order] for value in values))

    @property
    def own_fragments(self) -> np.ndarray:
        """The fragments of the block alone, (Z, Y, X), as 1 ... n."""
        ids = self.ids[self.compact[self.block.slices(self.with_context.offset)]]
        return np.where(ids > 0, ids - np.uint64(self.lowest), np.uint64(0))


class EdgeColumns(Protocol):
    """What is stored of the edges of a block."""

    @property
    def attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """The attributes of each column."""

    def empty(self) -> Columns:
        """The columns of a block without fragments."""

    def of(self, block: BlockFragments) -> Columns:
        """The columns of a block."""


@dataclass(frozen=True)
class MergeScores:
    """The score of the merge that connects the two fragments of an edge."""

    method: str

    @property
    def attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """The method of both."""
        return {EDGES: {"method": self.method}, SCORES: {"method": self.method}}

    def empty(self) -> Columns:
        """No edge and no score."""
        return {EDGES: np.empty((0, 2), np.uint64), SCORES: np.empty(0, np.float32)}

    def of(self, block: BlockFragments) -> Columns:
        """Edges and scores."""
        graph = region_graph(block.affinities, block.compact, self.method)
        return dict(zip((EDGES, SCORES), block.own(*graph), strict=True))


@dataclass(frozen=True)
class EdgeFeatures:
    """Features of the contact of an edge, and of each fragment.

    `in_xy`: the image is described section by section.
    """

    method: str
    raw: Volume
    descriptors: Volume | None
    in_xy: bool

    @property
    def attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """The names of the features."""
        names = fragment_names(self.descriptors.channels if self.descriptors else 0)
        return {
            EDGES: {"method": self.method},
            EDGE_FEATURES: {"names": list(CONTACT_NAMES)},
            FRAGMENT_FEATURES: {"names": list(names)},
        }

    def empty(self) -> Columns:
        """No edge and no fragment."""
        named = {name: about.get("names") for name, about in self.attributes.items()}
        lists = {k: np.empty((0, len(names)), np.float32) for k, names in named.items() if names}
        return {EDGES: np.empty((0, 2), np.uint64), **lists}

    def of(self, block: BlockFragments) -> Columns:
        """Edges, their features, and the features of the block's own fragments."""
        image = image_channels(self.raw, block.with_context, in_xy=self.in_xy)
        edges, features = block.own(*contact_features(block.affinities, image, block.compact))
        part = (slice(None), *block.block.slices(block.with_context.offset))
        descriptors = self.descriptors.read(block.block) if self.descriptors else None
        of_fragments = fragment_features(
            block.affinities[part], image[part], descriptors, block.own_fragments
        )
        return {EDGES: edges, EDGE_FEATURES: features, FRAGMENT_FEATURES: of_fragments}


def edge_columns(inputs: SegmentationInputs, settings: SegmentationSettings) -> EdgeColumns:
    """What the method of a segmentation needs to know of edges."""
    if inputs.raw is None:
        return MergeScores(settings.method)
    return EdgeFeatures(settings.method, inputs.raw, inputs.descriptors, settings.fragments_in_xy)
