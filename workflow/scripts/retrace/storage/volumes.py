"""Volumes: arrays with voxel size and offset in nm; zarr v2 with OME-NGFF 0.4 on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import DataError
from retrace.formats.hdf5_tiff import ReorderedArray, open_hdf5_or_tiff
from retrace.formats.label_kinds import KINDS, NUMBERED
from retrace.formats.label_values import ClassGroups, SectionObjects
from retrace.formats.n5 import N5Array, is_n5_dataset
from retrace.formats.precomputed import PrecomputedLayer
from retrace.formats.zarr_arrays import BlockStore, open_zarr
from retrace.geometry import Triple, VoxelBox, triple
from retrace.remote.addresses import check_address, is_address, is_zarr, local_folder
from retrace.remote.block_cache import CacheOptions
from retrace.remote.block_reader import BlockReader
from retrace.remote.objects import open_folder
from retrace.remote.read_record import ChangedError, merge_records
from retrace.storage.manifest import origin, reading, vouched
from retrace.storage.zarr_writer import CHUNK_SHAPE

# A chunk of zeros is written too, also into an array that was opened again: a missing one shows.
zarr.config.set({"array.write_empty_chunks": True})

EVEN = "even"
"""The `auto_crop` of labels that must lie exactly in the middle of their image."""


@dataclass(frozen=True)
class Volume:
    """An array (Z, Y, X) or (C, Z, Y, X) at a place in the world."""

    array: Any
    voxel_size_nm: Triple
    offset_nm: Triple
    name: str

    @property
    def reader(self) -> BlockReader | None:
        """What the array is read through block by block; None for one on this machine."""
        found: BlockReader | None = getattr(self.array, "reader", None)
        return found

    @property
    def channels(self) -> int:
        """Number of channels, 0 for a (Z, Y, X) array."""
        return int(self.array.shape[0]) if len(self.array.shape) == 4 else 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    @property
    def box(self) -> VoxelBox:
        """Where the array lies, in voxels from the world's origin."""
        if any(o % v for o, v in zip(self.offset_nm, self.voxel_size_nm, strict=True)):
            raise DataError(
                f"{self.name}: offset {list(self.offset_nm)} nm is no multiple of the voxel size "
                f"{list(self.voxel_size_nm)} nm; correct `offset_nm` in the dataset's config"
            )
        offset = [o // v for o, v in zip(self.offset_nm, self.voxel_size_nm, strict=True)]
        return VoxelBox(triple(offset), triple(self.array.shape[-3:]))

    def read(self, box: VoxelBox, fill: float | None = None) -> np.ndarray:
        """The voxels of `box`, (Z, Y, X) or (C, Z, Y, X).

        Voxels outside the volume become `fill`; without `fill` they raise DataError.
        """
        inside = box.intersect(self.box)
        if inside != box and fill is None:
            raise DataError(
                f"{self.name}: box {box.offset}+{box.shape} leaves the volume "
                f"{self.box.offset}+{self.box.shape} (voxels)"
            )
        channels = (slice(None),) if self.channels else ()
        with reading(self.name):
            data = np.asarray(self.array[(*channels, *inside.slices(self.box.offset))])
        if inside == box:
            return data
        lead = (self.channels,) if self.channels else ()
        result = np.full((*lead, *box.shape), fill, dtype=data.dtype)
        if not inside.is_empty:
            result[(..., *inside.slices(box.offset))] = data
        return result


def mask_on_grid(mask: Volume, box: VoxelBox, voxel_size_nm: tuple[int, int, int]) -> np.ndarray:
    """`mask` as booleans on the voxels of `box` (nearest; outside the mask volume: False).

    The mask's voxels may be larger than `voxel_size_nm`; both grids are in world coordinates.
    """
    rows = [
        (np.arange(begin, end) * fine + fine // 2 - start) // coarse
        for begin, end, fine, coarse, start in zip(
            box.offset, box.end, voxel_size_nm, mask.voxel_size_nm, mask.offset_nm, strict=True
        )
    ]
    low, high = [int(r[0]) for r in rows], [int(r[-1]) + 1 for r in rows]
    shape = tuple(h - b for b, h in zip(low, high, strict=True))
    window = VoxelBox((low[0], low[1], low[2]), (shape[0], shape[1], shape[2]))
    # From its own corner, which need not lie on the grid of its (larger) voxels.
    values = replace(mask, offset_nm=(0, 0, 0)).read(window, fill=0) > 0
    return values[np.ix_(*[r - b for r, b in zip(rows, low, strict=True)])]


def is_masked(mask: Volume | None, box: VoxelBox, voxel_size_nm: tuple[int, int, int]) -> bool:
    """Whether a mask leaves nothing of `box` (voxels of `voxel_size_nm`); False without one."""
    return mask is not None and not mask_on_grid(mask, box, voxel_size_nm).any()


def _find_zarr_store(path: Path) -> Path:
    if not path.exists():
        raise DataError(
            f"{path} does not exist; fetch it, or correct `path` in the dataset's config"
        )
    return path


def _open_array(path: Path, array: str, mip: int) -> Any:
    if path.suffix == ".n5" or is_n5_dataset(path):
        return N5Array(path / array)
    is_zarr = any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json"))
    if path.suffix == ".zarr" or is_zarr:
        return open_zarr(_find_zarr_store(path), str(path), array, mip)
    if not path.exists():
        raise DataError(f"{path} does not exist; correct `path` in the dataset's config")
    return open_hdf5_or_tiff(path, array)


def _agreed_voxel_size(
    name: str, stored: Sequence[float] | None, asked: Sequence[int] | None
) -> Triple:
    """The voxel size, whole nm. A file may say 4.6 where the config says 5, its rounding."""
    if stored is None and asked is None:
        raise DataError(
            f"{name} has no voxel size: neither a `resolution` attribute (nm, z y x) nor "
            "`voxel_size_nm` in the dataset's config; add the latter"
        )
    if stored is not None and asked is None and any(int(value) != value for value in stored):
        raise DataError(
            f"{name} says its voxel size is {list(stored)} nm; sizes here are whole nm. Add "
            f"`voxel_size_nm: {[round(v) for v in stored]}` to the dataset's config"
        )
    whole = None if stored is None else triple([round(value) for value in stored])
    if whole is not None and asked is not None and whole != triple(asked):
        raise DataError(
            f"{name} says its voxel size is {stored} nm, the config says {list(asked)} nm; "
            "correct `voxel_size_nm` in the dataset's config"
        )
    if whole is not None:
        return whole
    assert asked is not None
    return triple(asked)


@dataclass(frozen=True)
class Server:
    """The S3 server of s3:// addresses (None: the public one), and whether it is asked unsigned."""

    endpoint_url: str | None = None
    unsigned: bool = True


def _open_address(address: str, array: str, mip: int, server: Server) -> Any:
    """A zarr array, level of an OME-Zarr image or precomputed layer that is read by block."""
    check_address(address, array)
    options = CacheOptions.from_environment()
    folder = open_folder(address, server.endpoint_url, server.unsigned, options.threads)
    reader = BlockReader(folder, options, on_disk=local_folder(address) is None)
    if is_zarr(address):
        return open_zarr(BlockStore(reader), address, array, mip)
    return PrecomputedLayer(reader, address, mip)


def _listed(values: Any) -> list[float] | None:
    """A file's attribute as a list, None where it has none."""
    if values is None:
        return None
    return [int(value) if int(value) == value else float(value) for value in values]


def open_volume(
    store: str | Path,
    array: str = "",
    voxel_size_nm: Sequence[int] | None = None,
    offset_nm: Sequence[int] | None = None,
    mip: int = 0,
    server: Server = Server(),  # noqa: B008 (frozen)
) -> Volume:
    """Opens zarr, n5, h5, a tif, a folder of tifs, or what lies at an address, read-only.

    `mip`: the level of an OME-Zarr image or of a precomputed layer. What lies at an address
    (retrace.addresses) is read block by block.

    `voxel_size_nm` and `offset_nm` (z, y, x) come from the file's attributes `resolution` and
    `offset` where it has them; a voxel size that is missing or contradicts raises DataError.
    An `offset_nm` given here wins over the file's.
    """
    if is_address(store):
        data = _open_address(str(store), array, mip, server)
    else:
        data = _open_array(Path(store), array, mip)
    name = f"{store}/{array}" if array else str(store)
    if len(data.shape) not in (3, 4):
        raise DataError(
            f"{name} has shape {tuple(data.shape)}; (z, y, x) or (c, z, y, x) is needed"
        )
    attrs = dict(getattr(data, "attrs", {}))
    voxel_size = _agreed_voxel_size(name, _listed(attrs.get("resolution")), voxel_size_nm)
    offset = triple(offset_nm if offset_nm is not None else attrs.get("offset", (0, 0, 0)))
    volume = Volume(data, voxel_size, offset, name)
    for opened in _NOTED:
        opened.append((str(store), volume))
    return volume


Opened = list[tuple[str, Volume]]
"""Volumes with the paths or addresses of their stores."""
_NOTED: list[Opened] = []


@contextmanager
def noting_opened() -> Iterator[Opened]:
    """Yields a list that gets every volume which this process opens meanwhile."""
    opened: Opened = []
    _NOTED.append(opened)
    try:
        yield opened
    finally:
        _NOTED[:] = [other for other in _NOTED if other is not opened]


def origin_of(
    opened: Opened, files: Iterable[Path], settings: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """`manifest.origin` of what was made of the volumes in `opened` and of `files`.

    ChangedError where a volume elsewhere that was opened twice was changed in between.
    """
    local = [Path(path) for path, _ in opened if not is_address(path)]
    inputs = sorted({*(vouched(path) or path for path in local), *files})
    readers = [volume.reader for _, volume in opened if volume.reader is not None]
    urls = sorted({reader.folder.url for reader in readers})
    read = {
        u: merge_records([r.record for r in readers if r.record.url == u]).summary() for u in urls
    }
    return origin(inputs, settings, seconds, read)


def open_source(source: Mapping[str, Any]) -> Volume:
    """`open_volume` for the source entry of a dataset's config: path, array, mip, sizes.

    `objects`: how labels tell objects apart (retrace.objects). `fit`: the image these labels
    belong to, and whether they lie in its middle or must be as large (DataError).
    """
    volume = open_volume(
        source["path"],
        source.get("array") or "",
        source.get("voxel_size_nm"),
        source.get("offset_nm"),
        source.get("mip") or 0,
        Server(source.get("endpoint_url"), source.get("unsigned", True)),
    )
    axes, channel = source.get("axes"), source.get("channel")
    if axes or channel is not None:
        stored = axes or ("czyx" if volume.channels else "zyx")
        volume = replace(volume, array=ReorderedArray(volume.array, stored, channel, volume.name))
    kind = source.get("objects") or KINDS[0]
    if kind not in NUMBERED:
        volume = replace(volume, array=SectionObjects(volume.array, kind))
    if source.get("class_values"):
        volume = replace(volume, array=ClassGroups(volume.array, source["class_values"]))
    return _fitted(volume, source["fit"]) if source.get("fit") else volume


def _fitted(labels: Volume, fit: Mapping[str, Any]) -> Volume:
    """Labels in the middle of their image: centres on each other, the lower one of an even size."""
    image = open_source(fit["image"])
    here, there = labels.array.shape[-3:], image.array.shape[-3:]
    if here != there and not fit["crop"]:
        raise DataError(
            f"{labels.name} has {list(here)} voxels, {image.name} {list(there)}; give labels as "
            "large as the image, or set `auto_crop: true` (is_auto_crop = yes in a .spec) to put "
            "them in its middle"
        )
    if any(small > large for small, large in zip(here, there, strict=True)):
        raise DataError(f"{labels.name} {list(here)} is larger than {image.name} {list(there)}")
    surplus = [large - small for small, large in zip(here, there, strict=True)]
    if fit["crop"] == EVEN and any(n % 2 for n in surplus):
        raise DataError(
            f"{image.name} is {surplus} voxels (z, y, x) larger than {labels.name}; labels lie in "
            "the middle of their image, so each surplus must be even. Cut one section or row off "
            "the image"
        )
    lead = [(large - 1) // 2 - (small - 1) // 2 for small, large in zip(here, there, strict=True)]
    sizes = zip(image.offset_nm, lead, labels.voxel_size_nm, strict=True)
    return replace(labels, offset_nm=triple([o + n * size for o, n, size in sizes]))


def local_inputs(sources: Iterable[Mapping[str, Any]]) -> list[Path]:
    """The paths of those sources that lie on this machine as files."""
    return [Path(s["path"]) for s in sources if not is_address(s["path"])]


def read_elsewhere(*volumes: Volume | None) -> dict[str, dict[str, Any]]:
    """By address what was read of volumes elsewhere, for a manifest."""
    readers = [v.reader for v in volumes if v is not None and v.reader is not None]
    return {reader.folder.url: reader.record.summary() for reader in readers}


def version_of(volume: Volume, source: Mapping[str, Any]) -> str | int:
    """What changes when somebody changes a volume: its metadata elsewhere, its time here."""
    if volume.reader is not None:
        return volume.reader.record.version
    return Path(source["path"]).stat().st_mtime_ns


@contextmanager
def one_edition(work: Path, *volumes: Volume | None) -> Iterator[None]:
    """Notes in `work` what is read of volumes elsewhere, beyond a kill.

    Where one was changed since it was begun (ChangedError), `work` is given up, so that the next
    run begins anew.
    """
    try:
        for index, volume in enumerate(volumes):
            if volume is not None and volume.reader is not None:
                volume.reader.keep_record(work / f"read_{index}.jsonl")
        yield
    except ChangedError:
        shutil.rmtree(work, ignore_errors=True)
        raise


def check_raw(raw: Volume, box: VoxelBox | None = None) -> None:
    """Refuses raw that is neither uint8 nor float in [0, 1] (DataError); reads float data once."""
    check_raw_type(raw)
    if raw.dtype == np.uint8:
        return
    where = box or raw.box
    for z in range(where.offset[0], where.end[0], CHUNK_SHAPE[0]):
        depth = min(CHUNK_SHAPE[0], where.end[0] - z)
        slab = VoxelBox((z, *where.offset[1:]), (depth, *where.shape[1:]))
        check_float(raw.name, raw.read(slab, fill=0))


def check_raw_type(raw: Volume) -> None:
    """Refuses raw that is neither uint8 nor float (DataError)."""
    if raw.dtype != np.uint8 and raw.dtype.kind != "f":
        raise DataError(
            f"{raw.name} is {raw.dtype}; raw must be uint8, or float in [0, 1]. Convert it first"
        )


def check_float(name: str, data: np.ndarray) -> None:
    """Refuses float data that is not in [0, 1] (DataError)."""
    if np.isnan(data).any():
        raise DataError(f"{name} holds NaN; replace them (0 for absent voxels) and run again")
    if data.size and (data.min() < 0 or data.max() > 1):
        raise DataError(
            f"{name} is float with values {data.min():.4g} to {data.max():.4g}; raw must lie in "
            "[0, 1]: rescale it, or store it as uint8"
        )


def check_labels(labels: Volume) -> None:
    """Refuses labels that are not whole numbers (DataError)."""
    if labels.dtype.kind not in "ui":
        raise DataError(f"{labels.name} is {labels.dtype}; labels must be an integer type")
