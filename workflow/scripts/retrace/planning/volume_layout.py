"""What the files on this machine say about the arrays of a volume; read while planning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from retrace.config.dataset_model import Dataset, DatasetVolume
from retrace.config.sources import NAMED_PARTS, PARTS
from retrace.formats.arrangement import arrange
from retrace.formats.contract import Configured
from retrace.formats.headers import read_header
from retrace.formats.placement import Extent, box_on_grid, lead_in_image, placed
from retrace.formats.source import SEPARATED_LABEL_KINDS, Source
from retrace.geometry import NmTriple, VoxelBox, shifted
from retrace.planning.paths import ground_truth, manifest


@dataclass(frozen=True)
class ArrayLayout:
    """An array (z, y, x) or (c, z, y, x), placed as its dataset asks for; nm."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    voxel_size_nm: NmTriple
    offset_nm: NmTriple
    is_placed: bool = True
    """Whether the file or the configuration states its position; else it is at 0."""
    source: Source | None = None
    inverted: bool = False
    """Whether the file says that 0 is white."""
    is_colour: bool = False
    """Whether the values are ids of colours."""

    @property
    def channels(self) -> int:
        """Number of channels, 0 for (z, y, x)."""
        return self.shape[0] if len(self.shape) == 4 else 0

    @property
    def box(self) -> VoxelBox:
        """Its box, voxels from the world's origin; DataError if off the voxel grid."""
        return box_on_grid(self.name, self.shape, self.offset_nm, self.voxel_size_nm)

    @property
    def place(self) -> Extent:
        """Its place, to compare with that of an image."""
        return Extent(self.name, self.shape[-3:], self.offset_nm, self.is_placed)

    @property
    def extent(self) -> str:
        """Its box in words."""
        box = self.box.to_nm(self.voxel_size_nm)
        return f"{self.name} from {list(box.offset)} to {list(box.end)} nm"


def source_layout(source: Source) -> ArrayLayout | None:
    """The layout of a source, as storage.volumes opens it; None where it is not known here.

    DataError for an array that does not exist, or that contradicts what the dataset says of it.
    """
    header = read_header(source.path, source.array, source.mip or 0)
    if header is None:
        return None
    name = f"{source.path}/{source.array}" if source.array else source.path
    how = arrange(name, header, source.axes, source.channel, drops_channel=True)
    configured = Configured(source.voxel_size_nm, source.offset_nm, source.default_offset_nm)
    place = placed(name, header, how.axes, configured)
    layout = ArrayLayout(
        name,
        how.shape(header.shape),
        _dtype(source, how.dtype(header.dtype)),
        place.voxel_size_nm,
        place.offset_nm,
        place.offset_by != "unknown",
        source,
        header.inverted,
        how.makes_ids,
    )
    return _fitted(layout, source)


def _dtype(source: Source, stored: str) -> str:
    """The type of the values that are read; objects and classes are computed from the stored."""
    if source.objects in SEPARATED_LABEL_KINDS:
        return "int64" if stored.startswith(("int", "float")) else "uint64"
    if source.normalize is not None and source.normalize.scales:
        return "uint8"
    return "int32" if source.class_values else stored


def _fitted(layout: ArrayLayout, source: Source) -> ArrayLayout | None:
    """Labels in the middle of their image; None where the image is not known here."""
    if source.fit is None:
        return layout
    image = source_layout(source.fit.image)
    if image is None:
        return None
    inner, outer = layout.shape[-3:], image.shape[-3:]
    lead = lead_in_image(layout.name, inner, image.name, outer, source.fit.crop)
    offset = shifted(image.offset_nm, lead, layout.voxel_size_nm)
    return replace(layout, offset_nm=offset, is_placed=True)


def volume_layouts(dataset: Dataset, volume: DatasetVolume) -> dict[str, ArrayLayout]:
    """The layouts that are known here, by the part of the volume ("raw", "outputs: NODE").

    Left out: remote arrays, files that do not exist yet, and downloads that are not complete.
    """
    layouts = {}
    for part, source in named_sources(volume):
        if not _is_incomplete(dataset, source.path) and (layout := source_layout(source)):
            layouts[part] = layout
    return layouts


def named_sources(volume: DatasetVolume) -> Iterator[tuple[str, Source]]:
    """The sources of a volume, by the part of the volume that they are."""
    for part in PARTS:
        if (source := getattr(volume, part)) is not None:
            yield part, source
    for part in NAMED_PARTS:
        yield from ((f"{part}: {name}", source) for name, source in getattr(volume, part).items())


def _is_incomplete(dataset: Dataset, path: str) -> bool:
    """Whether a rule fetches the file and has not finished yet."""
    folder = ground_truth(dataset, path)
    is_fetched = dataset.bucket is not None and path.startswith(f"data/{dataset.name}/")
    if folder is None and not is_fetched:
        return False
    return not Path(manifest(folder or path)).is_file()
