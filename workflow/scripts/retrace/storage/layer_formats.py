"""Formats that layers are exported in, one entry each.

Settings and rules read the entries, so that planning imports no writer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat

if TYPE_CHECKING:
    from retrace.geometry import VoxelBox
    from retrace.storage.precomputed_writer import LayerPlan
    from retrace.storage.volumes import Volume


@dataclass(frozen=True)
class ExportedLayer:
    """A layer that is written: a box of a volume."""

    volume: Volume
    box: VoxelBox
    name: str
    labels: bool
    """Whether values are ids."""
    gzip: bool
    threads: int
    zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT
    """Format of an OME-Zarr image."""


Write = Callable[[Path, Path], dict[str, str]]
"""Writes a layer into a folder; a second folder keeps its progress.

Returns the SHA-256 (hex) of the chunks that it knows, by their path below the layer."""
Plan = Callable[[ExportedLayer], "tuple[LayerPlan, Write]"]
"""The mips of a layer, and a function that writes them."""


@dataclass(frozen=True)
class LayerFormat:
    """A format of exported layers. They are written to VOLUME/NAME/LAYER."""

    about: str
    """For the page of settings."""
    rule: str
    """The rule that writes it."""
    writer: str
    """The function of type `Plan` that plans and writes a layer, as "module:function"."""
    suffix: str = ""
    """Suffix of the layer's folder."""
    settings: tuple[str, ...] = ()
    """Further settings of the format, among those of `ExportSettings`."""

    def load(self, part: str) -> Any:
        """The object that a field names."""
        return resolve_name(getattr(self, part))


PRECOMPUTED = LayerFormat(
    about="VOLUME/precomputed/LAYER, for neuroglancer and CloudVolume",
    rule="export",
    writer="retrace.storage.precomputed_writer:plan_precomputed",
    settings=("gzip", "shapes"),
)
OME_ZARR = LayerFormat(
    about="VOLUME/ome_zarr/LAYER.zarr, for napari and other readers of OME-NGFF",
    rule="export_ome_zarr",
    writer="retrace.storage.ome_zarr_writer:plan_ome_zarr",
    suffix=".zarr",
    settings=("zarr_format",),
)

LAYER_FORMATS = {"precomputed": PRECOMPUTED, "ome_zarr": OME_ZARR}
"""All formats by the name that settings give them."""
