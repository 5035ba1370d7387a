"""Volumes: arrays with voxel size and offset in nm, opened from any supported format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import DataError, DeniedError
from retrace.formats.arrangement import ArrangedArray, Arrangement, arrange
from retrace.formats.contract import Configured
from retrace.formats.grey_values import GreyValues
from retrace.formats.label_values import ClassGroups, ColourLabels, SectionObjects
from retrace.formats.n5 import N5Array
from retrace.formats.normalize import Normalize
from retrace.formats.placement import Extent, box_on_grid, lead_in_image, placed
from retrace.formats.precomputed import PrecomputedLayer
from retrace.formats.readers import FETCH_AGAIN, open_array
from retrace.formats.source import SEPARATED_LABEL_KINDS, Fit, Source
from retrace.formats.zarr_arrays import BlockStore, CheckedStore, ZarrVolume, chunk_names, open_zarr
from retrace.geometry import NM_DECIMALS, NmTriple, Triple, VoxelBox, shifted, triple
from retrace.reading import reading_content, retried
from retrace.remote.addresses import (
    check_address,
    is_address,
    is_zarr,
    local_folder,
    zarr_store,
)
from retrace.remote.block_cache import CacheOptions
from retrace.remote.block_reader import BlockReader
from retrace.remote.objects import get_block, open_folder
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.settings_model import as_json
from retrace.storage.grey_range import measured
from retrace.storage.manifest import reading, store_with_manifest
from retrace.storage.store_check import (
    FILL_MISSING,
    check_all_chunks,
    check_all_in_shards,
    check_chunk_names,
    check_first_chunk_names,
    file_check,
    missing_check,
)

# Also write chunks of zeros into arrays that are opened again: a missing chunk then shows a fault.
zarr.config.set({"array.write_empty_chunks": True})


@dataclass(frozen=True)
class Volume:
    """An array (Z, Y, X) or (C, Z, Y, X) with its voxel size and offset, nm (z, y, x)."""

    array: Any
    voxel_size_nm: NmTriple
    offset_nm: NmTriple
    name: str
    is_placed: bool = True
    """Whether the file or the configuration states its position; else it is at 0."""
    inverted: bool = False
    """Whether the file says that 0 is white."""
    is_colour: bool = False
    """Whether the values are ids of colours."""

    @property
    def reader(self) -> BlockReader | None:
        """The reader of a streamed array, None for an array of this machine."""
        reader: BlockReader | None = getattr(self.array, "reader", None)
        return reader

    @property
    def channels(self) -> int:
        """Number of channels, 0 for a (Z, Y, X) array."""
        return int(self.array.shape[0]) if len(self.array.shape) == 4 else 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what `read` gives, in the byte order of this machine."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def box(self) -> VoxelBox:
        """The array's box, voxels from the world's origin; DataError if off the voxel grid."""
        return box_on_grid(self.name, self.array.shape, self.offset_nm, self.voxel_size_nm)

    @property
    def place(self) -> Extent:
        """Its place, to compare with that of an image."""
        return Extent(self.name, self.array.shape[-3:], self.offset_nm, self.is_placed)

    def read(self, box: VoxelBox, fill: float | None = None) -> np.ndarray:
        """The voxels (Z, Y, X) or (C, Z, Y, X) of `box` (voxels from the world's origin).

        Voxels outside the volume become `fill`. DataError without `fill`, and for damaged chunks.
        """
        inside = box.intersect(self.box)
        if inside != box and fill is None:
            raise DataError(
                f"{self.name}: box {box.offset}+{box.shape} leaves the volume "
                f"{self.box.offset}+{self.box.shape} (voxels)"
            )
        channels = (slice(None),) if self.channels else ()
        region = (*channels, *inside.slices(self.box.offset))
        with reading(self.name):
            data = retried(lambda: np.asarray(self.array[region], self.dtype), self.name)
        if inside == box:
            return data
        lead = (self.channels,) if self.channels else ()
        result = np.full((*lead, *box.shape), fill, dtype=data.dtype)
        if not inside.is_empty:
            result[(..., *inside.slices(box.offset))] = data
        return result


def mask_on_grid(mask: Volume, box: VoxelBox, voxel_size_nm: NmTriple) -> np.ndarray:
    """`mask` as bool (Z, Y, X) on the voxels of `box`: that of the nearest mask voxel, else False.

    The mask's voxels may be larger than `voxel_size_nm`; both grids are in world coordinates.
    """
    lengths = [[_units(nm) for nm in nms] for nms in (voxel_size_nm, mask.voxel_size_nm)]
    starts = [_units(nm) for nm in mask.offset_nm]
    rows = [  # centres of the voxels in halves of a unit
        ((2 * np.arange(begin, end) + 1) * fine - 2 * start) // (2 * coarse)
        for begin, end, fine, coarse, start in zip(
            box.offset, box.end, *lengths, starts, strict=True
        )
    ]
    low, high = [int(r[0]) for r in rows], [int(r[-1]) + 1 for r in rows]
    shape = tuple(h - b for b, h in zip(low, high, strict=True))
    window = VoxelBox((low[0], low[1], low[2]), (shape[0], shape[1], shape[2]))
    # With offset 0, because the mask's own offset may lie between its (larger) voxels.
    values = replace(mask, offset_nm=(0, 0, 0)).read(window, fill=0) > 0
    return values[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]


def _units(length_nm: float) -> int:
    """A length as a whole number of the smallest unit of positions."""
    return round(length_nm * 10**NM_DECIMALS)


def zarr_format_of(volume: Volume) -> ZarrFormat:
    """The format of a volume's store; the default one for other stores than zarr."""
    array = _zarr_array(volume)
    return DEFAULT_ZARR_FORMAT if array is None else array.metadata.zarr_format


def shards_of(volume: Volume) -> Triple | None:
    """The shards (z, y, x) of a volume of zarr format 3, None for a volume without shards."""
    array = _zarr_array(volume)
    return None if array is None or array.shards is None else triple(array.shards[-3:])


def _zarr_array(volume: Volume) -> zarr.Array | None:
    array = getattr(volume.array, "array", volume.array)
    return array if isinstance(array, zarr.Array) else None


def is_masked(mask: Volume | None, box: VoxelBox, voxel_size_nm: NmTriple) -> bool:
    """Whether a mask excludes all of `box` (voxels of `voxel_size_nm`); False without a mask."""
    return mask is not None and not mask_on_grid(mask, box, voxel_size_nm).any()


@dataclass(frozen=True)
class S3Server:
    """The server of s3:// addresses (None: the public one); `unsigned`: without credentials."""

    endpoint_url: str | None = None
    unsigned: bool = True


def _open_address(
    address: str, array: str, mip: int, server: S3Server, missing_chunks: str | None
) -> Any:
    """A streamed zarr array, level of an OME-Zarr image, or precomputed layer."""
    check_address(address, array)
    if is_zarr(address):
        address, array = zarr_store(address, array)
    options = CacheOptions.from_environment()
    local = local_folder(address)
    check = file_check(local, address, missing_chunks)
    is_made = local is not None and store_with_manifest(local) is not None
    folder = open_folder(
        address,
        server.endpoint_url,
        server.unsigned,
        options.threads,
        check if is_made else None,
    )
    reader = BlockReader(folder, options, on_disk=local is None)
    if is_zarr(address):
        store = BlockStore(reader, None if is_made else check)
        opened = open_zarr(store, address, array, mip)
        if missing_chunks == FILL_MISSING:
            _check_names(f"{address}/{array}", opened.array, local, reader)
        return opened
    layer = PrecomputedLayer(reader, address, mip)
    layer.fill_missing = missing_chunks == FILL_MISSING
    return layer


def _open_local(path: Path, array: str, mip: int, missing_chunks: str | None) -> Any:
    """An array of a file or folder; checked for missing chunks unless it has a manifest."""
    if not path.is_dir():
        return open_array(path, array, mip, missing_check(str(path), missing_chunks))
    data = open_array(path, array, mip, file_check(path, str(path), missing_chunks))
    name = f"{path}/{array}" if array else str(path)
    if missing_chunks == FILL_MISSING and isinstance(data, ZarrVolume):
        _check_names(name, data.array, path)
    if missing_chunks == FILL_MISSING or store_with_manifest(path) is not None:
        return data
    if isinstance(data, N5Array):
        check_all_chunks(name, data.path, data.chunk_names())
    if isinstance(data, ZarrVolume):
        folder = path / data.array.path
        check_all_chunks(name, folder, chunk_names(data.array))
        check_all_in_shards(name, folder)
    return data


def _check_names(
    name: str, array: zarr.Array, folder: Path | None, reader: BlockReader | None = None
) -> None:
    """DataError for chunks under names that the metadata do not give, which would read as empty."""
    key = str(next(chunk_names(array), ""))
    if key and folder is not None:
        check_chunk_names(name, folder / array.path, key)
    elif key and reader is not None and array.metadata.zarr_format == 2:
        prefix = f"{array.path}/" if array.path else ""
        check_first_chunk_names(name, key, lambda twin: _exists(reader, prefix + twin))


def _exists(reader: BlockReader, name: str) -> bool:
    """Whether an object exists, without a note that a block was read.

    Some buckets deny objects that do not exist.
    """
    try:
        return get_block(reader.folder, name).stored is not None
    except DeniedError:
        return False


def open_group(store: Path) -> zarr.Group:
    """A zarr folder of this machine, to read; compared with its manifest, if it has one."""
    check = file_check(store, str(store), FILL_MISSING)
    return zarr.open_group(CheckedStore(store, check), mode="r")


def open_volume(
    store: str | Path,
    array: str = "",
    voxel_size_nm: Sequence[float] | None = None,
    offset_nm: Sequence[float] | None = None,
    mip: int = 0,
    server: S3Server = S3Server(),  # noqa: B008 (frozen)
    missing_chunks: str | None = None,
    drops_channel: bool = False,
) -> Volume:
    """Opens an array (Z, Y, X) or (C, Z, Y, X) of zarr, n5, h5 or tif(s), or streams an address.

    `mip`: level of an OME-Zarr image or precomputed layer. `server`: for s3:// addresses.
    `missing_chunks`: as for a Source. `drops_channel`: as for `arrange`. A store with a manifest is
    compared with it: its listing here, the bytes of each chunk when it is read first.

    `voxel_size_nm` and `offset_nm` (z, y, x) are needed if the file states none, and must agree
    with it otherwise; without any offset it is 0. DataError if the array does not exist, or for
    statements that are missing or contradict each other.
    """
    stored = _open_array(store, array, mip, server, missing_chunks)
    configured = Configured(voxel_size_nm, offset_nm)
    return _placed_volume(str(store), array, stored, configured, drops_channel=drops_channel)


def _open_array(
    store: str | Path, array: str, mip: int, server: S3Server, missing_chunks: str | None
) -> Any:
    """An array as its reader gives it, with its description."""
    with reading_content(str(store), FETCH_AGAIN):
        if is_address(store):
            return _open_address(str(store), array, mip, server, missing_chunks)
        return _open_local(Path(store), array, mip, missing_chunks)


def open_stored(source: Source) -> Any:
    """The array of a source as its reader gives it, with its `description`; not placed yet."""
    server = S3Server(source.endpoint_url, source.unsigned)
    return _open_array(source.path, source.array, source.mip or 0, server, source.missing_chunks)


def _placed_volume(
    store: str,
    array: str,
    stored: Any,
    configured: Configured,
    axes: str | None = None,
    channel: int | None = None,
    drops_channel: bool = False,
) -> Volume:
    """The volume of an opened array, and a note that it was opened; as for `arrange`."""
    name = f"{store}/{array}" if array else store
    file = stored.description
    how = arrange(name, file, axes, channel, drops_channel=drops_channel)
    place = placed(name, file, how.axes, configured)
    data = _arranged(stored, how)
    volume = Volume(
        data,
        place.voxel_size_nm,
        place.offset_nm,
        name,
        place.offset_by != "unknown",
        file.inverted,
        how.makes_ids,
    )
    for opened in _RECORDINGS:
        opened.append((store, volume))
    return volume


def _arranged(stored: Any, how: Arrangement) -> Any:
    """The array (Z, Y, X) or (C, Z, Y, X) of what a reader gives."""
    if how.makes_ids:
        return ColourLabels(ArrangedArray(stored, replace(how, kept="czyx")))
    is_native = np.dtype(stored.dtype).isnative
    return stored if how.is_as_stored and is_native else ArrangedArray(stored, how)


OpenedVolumes = list[tuple[str, Volume]]
"""Volumes with the paths or addresses of their stores."""
_RECORDINGS: list[OpenedVolumes] = []


@contextmanager
def recording_opened() -> Iterator[OpenedVolumes]:
    """Yields a list to which every volume is added that this process opens in the context."""
    opened: OpenedVolumes = []
    _RECORDINGS.append(opened)
    try:
        yield opened
    finally:
        _RECORDINGS[:] = [other for other in _RECORDINGS if other is not opened]


def open_source(source: Source) -> Volume:
    """Opens the volume that a dataset's entry describes, with everything that the entry asks for.

    That is: a voxel size, an offset, an order of axes, a channel, objects between membranes, groups
    of classes, grey values, and labels in the middle of a larger image. DataError as for
    `open_volume`, and for labels that do not fit their image.
    """
    stored = open_stored(source)
    configured = Configured(source.voxel_size_nm, source.offset_nm, source.default_offset_nm)
    volume = _placed_volume(
        source.path,
        source.array,
        stored,
        configured,
        source.axes,
        source.channel,
        drops_channel=True,
    )
    if source.objects in SEPARATED_LABEL_KINDS:
        volume = replace(volume, array=SectionObjects(volume.array, source.objects))
    if source.class_values:
        volume = replace(volume, array=ClassGroups(volume.array, source.class_values))
    if source.normalize:
        volume = _normalised(volume, source, source.normalize)
    return _fitted(volume, source.fit) if source.fit else volume


def _normalised(volume: Volume, source: Source, settings: Normalize) -> Volume:
    """An image whose stored values become grey values; measured when it is read first."""
    reader = volume.reader
    version = reader.record.version if reader else Path(source.path).stat().st_mtime_ns
    measure = measured(volume.name, volume.array, settings, (as_json(source.plain()), version))
    return replace(volume, array=GreyValues(volume.name, volume.array, settings, measure))


def _fitted(labels: Volume, fit: Fit) -> Volume:
    """Labels with the offset that puts them in the middle of their image."""
    image = open_source(fit.image)
    inner, outer = labels.array.shape[-3:], image.array.shape[-3:]
    lead = lead_in_image(labels.name, inner, image.name, outer, fit.crop)
    offset = shifted(image.offset_nm, lead, labels.voxel_size_nm)
    return replace(labels, offset_nm=offset, is_placed=True)
