"""Settings of an exported layer."""

from __future__ import annotations

from pydantic import Field

from retrace.config.export_choices import ExportFormat, ShapeChoices
from retrace.formats.source import Source
from retrace.setting_types import DEFAULT_ZARR_FORMAT, Flag, ZarrFormat
from retrace.settings_model import SettingsModel


class ShapeSettings(ShapeChoices):
    """Meshes and skeletons of the segments of a precomputed layer."""

    meshes: Flag = Field(False, description="Whether meshes are written.")
    skeletons: Flag = Field(False, description="Whether skeletons are written.")


class ExportSettings(SettingsModel):
    """A volume that is written with all its mips for other programs."""

    format: ExportFormat = Field(description="Name of the format.")
    source: Source = Field(description="The volume.")
    within: Source | None = Field(
        None, description="Volume whose box the layer is cropped to. null: the whole layer."
    )
    labels: Flag = Field(description="Whether the values are ids.")
    gzip: Flag = Field(
        False, description="Whether chunks of a precomputed layer are files NAME.gz, compressed."
    )
    zarr_format: ZarrFormat = Field(
        DEFAULT_ZARR_FORMAT, description="Format of an OME-Zarr image: 2, or 3 with shards."
    )
    shapes: ShapeSettings | None = Field(
        None, description="Meshes and skeletons of a precomputed layer of ids. null: none."
    )
