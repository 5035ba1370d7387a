"""Settings of a view in neuroglancer: its layers, and where it is served."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retrace.config.workflow import View
from retrace.formats.source import Source
from retrace.setting_types import Text
from retrace.settings_model import NO_EFFECT, SettingsModel

LayerKind = Literal[
    "raw", "labels", "mask", "affinities", "lsds", "boundary", "fragments", "segments"
]


class ViewLayerSource(Source):
    """A volume that is shown."""

    kind: LayerKind = Field(description="What the values are, which decides how they are drawn.")
    name: Text | None = Field(None, description="Name in the viewer. Absent: the kind.")


class ErrorsSource(SettingsModel):
    """A list of errors that the viewer steps through."""

    path: Text = Field(description="The file errors.json.")
    volume: Text = Field(description="The volume whose errors are shown.")


class ViewSettings(View):
    """Layers of a view, and where neuroglancer listens."""

    layers: tuple[ViewLayerSource, ...] = Field(
        description="Layers, the lowest first. Those whose files do not exist are left out."
    )
    meshes: Annotated[Text | None, NO_EFFECT] = Field(
        None,
        description="Folder of the exported layer of the segments, whose meshes the served viewer "
        "shows. null, or where it does not exist: neuroglancer computes meshes of small volumes.",
    )
    errors: Annotated[ErrorsSource | None, NO_EFFECT] = Field(
        None,
        description="Errors that the served viewer lists. null, or where the file does not exist: "
        "none.",
    )
