"""Settings of a segmentation: fragments and agglomeration of one volume."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from retrace.config.schema import check
from retrace.config.workflow import Segment, is_learned
from retrace.formats.source import Source
from retrace.setting_types import (
    DEFAULT_ZARR_FORMAT,
    Decay,
    Flag,
    Offset,
    Text,
    ZarrFormat,
)

MUTEX = "mutex"
DIRECT_NEIGHBORS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets (z, y, x) of the first three affinity channels."""


class SegmentationSettings(Segment):
    """How one volume is segmented: `segment` of config.yaml, and what depends on the volume."""

    fragments_in_xy: Flag = Field(False, description="Watershed section by section.")
    neighborhood: Annotated[tuple[Offset, ...], Field(min_length=3)] = Field(
        DIRECT_NEIGHBORS, description="Offset of each affinity channel, voxels (z, y, x)."
    )
    boundary: Text | None = Field(
        None,
        description="Array whose channel 0 is the inside of cells, of a prediction without "
        "affinities.",
    )
    mutex_bias: tuple[Decay, Decay] = Field(
        (0.5, 0.5),
        description="Affinity above which direct neighbours, and long-range ones, attract.",
    )
    tissue_mask: Source | None = Field(None, description="0 where nothing is segmented.")
    raw: Source | None = Field(
        None, description="The image, by which edges are described for a classifier."
    )
    zarr_format: ZarrFormat = Field(
        DEFAULT_ZARR_FORMAT, description="Format of the stores: 2, or 3 with shards."
    )

    @property
    def is_mutex(self) -> bool:
        """Whether the mutex watershed segments, without fragments and agglomeration."""
        return self.method == MUTEX

    @property
    def is_learned(self) -> bool:
        """Whether a classifier scores edges, which needs their features."""
        return is_learned(self)

    @property
    def joining(self) -> str:
        """How fragments are joined, in words: `they were ...`."""
        if self.is_learned:
            return (
                "joined by a multicut of the probabilities of a random forest, which was trained "
                "on the labels of the validation entries"
            )
        return f"agglomerated with {self.method}"

    @field_validator("neighborhood")
    @classmethod
    def _begins_with_direct_neighbors(cls, offsets: tuple[Offset, ...]) -> tuple[Offset, ...]:
        if offsets[:3] != DIRECT_NEIGHBORS:
            raise ValueError(
                "the first three affinities must be the direct neighbours "
                f"{[list(o) for o in DIRECT_NEIGHBORS]} (z, y, x), the network's `neighborhood` "
                f"begins with {[list(o) for o in offsets[:3]]}"
            )
        return offsets

    @model_validator(mode="after")
    def _a_classifier_needs_the_image(self) -> Self:
        if self.is_learned and self.raw is None:
            raise ValueError(f"method {self.method!r} describes edges by the image: set `raw`")
        return self

    @model_validator(mode="after")
    def _mutex_needs_the_whole_volume(self) -> Self:
        if self.is_mutex and self.block_shape:
            raise ValueError("method 'mutex' needs the whole volume: set `block_shape: null`")
        return self


def read_segmentation_settings(content: Any) -> SegmentationSettings:
    """The settings in the JSON of a job; ConfigError names the setting, value and choice."""
    return check(SegmentationSettings, content, "settings of the segmentation")
