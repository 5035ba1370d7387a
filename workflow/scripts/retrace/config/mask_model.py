"""Settings of a labels mask."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retrace.formats.source import Source
from retrace.setting_types import DEFAULT_ZARR_FORMAT, LabelId, ZarrFormat
from retrace.settings_model import NO_EFFECT, SettingsModel


class MaskSettings(SettingsModel):
    """Labels whose background is masked."""

    background_ids: tuple[LabelId, ...] = Field(description="Labels that are not neurons.")
    labels: Source = Field(description="The labels.")
    labels_mask: Source | None = Field(
        None, description="The dataset's own mask, 0 where labels are ignored."
    )
    image: Source | None = Field(
        None,
        description="The image of labels at an address, whose place in it planning cannot check.",
    )
    zarr_format: Annotated[ZarrFormat, NO_EFFECT] = Field(
        DEFAULT_ZARR_FORMAT,
        description="Format of a store that is written: 2, or 3 with shards; a mask that is there "
        "keeps its own.",
    )
