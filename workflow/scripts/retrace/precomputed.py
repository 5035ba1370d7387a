"""Neuroglancer's precomputed layers through CloudVolume, in the bucket they were published in.

The one place where x, y, z of CloudVolume become z, y, x. Only what is asked for is read, chunk by
chunk; nothing is kept on disk. CloudVolume is imported when a layer is opened, so that planning,
which looks at local `info` files alone, needs no more than the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.geometry import NmBox, VoxelBox, triple

SCHEMES = ("precomputed://", "gs://", "s3://", "https://", "http://", "file://")
MEMORY_BYTES = 1 << 28
"""Decoded chunks that a layer keeps: neighbouring tiles share them."""


def is_layer(path: str | Path) -> bool:
    """Whether a `path` of a dataset names a layer instead of a file."""
    return str(path).startswith(SCHEMES)


def local_folder(path: str) -> Path | None:
    """The folder of a layer on this machine, None for one elsewhere."""
    place = path.removeprefix("precomputed://")
    return Path(place.removeprefix("file://")) if place.startswith("file://") else None


def local_info(path: str) -> Path | None:
    """The `info` file of a layer on this machine, None for one elsewhere."""
    folder = local_folder(path)
    return None if folder is None else folder / "info"


def scale_box(scale: Mapping[str, Any]) -> VoxelBox:
    """Where one scale of an `info` lies, voxels z, y, x."""
    offset = scale.get("voxel_offset") or (0, 0, 0)
    return VoxelBox(triple(offset[::-1]), triple(scale["size"][::-1]))


def find_scale(path: str, info: Mapping[str, Any], mip: int) -> Mapping[str, Any]:
    """The scale of a mip level; DataError lists those that the layer has."""
    scales = info.get("scales") or []
    if not 0 <= mip < len(scales):
        known = ", ".join(f"{i}: {s['resolution'][::-1]} nm" for i, s in enumerate(scales))
        raise DataError(
            f"{path} has no mip {mip}; it has {known or 'none'} (z, y, x). Correct `mip` in the "
            "dataset's config"
        )
    found: Mapping[str, Any] = scales[mip]
    return found


def check_local_layer(source: Mapping[str, Any], roi_nm: Mapping[str, Any] | None) -> None:
    """Refuses a layer on this machine without that mip, or that a region leaves (DataError).

    Layers elsewhere are looked at when they are opened.
    """
    info = local_info(source["path"])
    if info is None:
        return
    try:
        content = json.loads(info.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source['path']} is no readable layer ({error}); correct `path` in the dataset's "
            "config"
        ) from error
    scale = find_scale(source["path"], content, source.get("mip") or 0)
    if roi_nm is not None:
        size = triple(scale["resolution"][::-1])
        check_inside(source["path"], scale_box(scale), size, roi_nm)


def check_inside(
    name: str, box: VoxelBox, voxel_size_nm: Sequence[int], roi_nm: Mapping[str, Any]
) -> None:
    """DataError where a region of interest leaves the volume it is cut from."""
    roi = NmBox(triple(roi_nm["offset"]), triple(roi_nm["shape"]))
    whole = box.to_nm(voxel_size_nm)
    if not whole.contains(roi):
        raise DataError(
            f"{name}: roi_nm {list(roi.offset)}+{list(roi.shape)} leaves the volume "
            f"{list(whole.offset)}+{list(whole.shape)} nm (z, y, x); correct `roi_nm` in the "
            "dataset's config"
        )


class Layer:
    """One mip of a layer as a read-only array (Z, Y, X) with `resolution` and `offset` in nm."""

    def __init__(self, path: str, mip: int) -> None:
        """DataError where the layer cannot be reached, lacks the mip or has several channels."""
        from cloudvolume import CloudVolume

        self.path = path
        address = path if path.startswith("precomputed://") else f"precomputed://{path}"
        try:
            # https: what is public needs no credentials there.
            volume = CloudVolume(
                address, use_https=True, progress=False, lru_bytes=MEMORY_BYTES, bounded=True
            )
        except Exception as error:  # every backend has its own errors
            raise DataError(
                f"{path} cannot be opened as a precomputed layer ({type(error).__name__}: "
                f"{error}); check the address and the network"
            ) from error
        scale = find_scale(path, volume.info, mip)
        if volume.num_channels != 1:
            raise DataError(f"{path} has {volume.num_channels} channels; one is needed")
        volume.mip = mip
        self._volume, self._box = volume, scale_box(scale)
        self.shape, self.dtype = self._box.shape, volume.dtype
        size = triple(scale["resolution"][::-1])
        self.attrs = {"resolution": list(size), "offset": list(self._box.to_nm(size).offset)}

    def __getitem__(self, region: tuple[slice, ...]) -> Any:
        """The voxels of three plain slices counted from the layer's first voxel, (z, y, x)."""
        import numpy as np

        spans = [s.indices(n)[:2] for s, n in zip(region, self.shape, strict=True)]
        if any(end <= begin for begin, end in spans):
            return np.zeros([max(0, end - begin) for begin, end in spans], self.dtype)
        pairs = zip(spans, self._box.offset, strict=True)
        wanted = [slice(begin + o, end + o) for (begin, end), o in pairs]
        try:
            found = self._volume[tuple(wanted[::-1])]
        except Exception as error:
            raise DataError(
                f"{self.path}: voxels {wanted} (z, y, x) cannot be read ({type(error).__name__}: "
                f"{error}); check the network and run the same command again"
            ) from error
        return np.asarray(found)[..., 0].T


def write_layer(
    folder: Path, data: Any, voxel_size_nm: Sequence[int], offset: Sequence[int]
) -> None:
    """Writes an array (Z, Y, X) as a layer of one mip; `offset` of its first voxel in voxels."""
    from cloudvolume import CloudVolume

    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type=str(data.dtype),
        encoding="raw",
        resolution=list(voxel_size_nm[::-1]),
        voxel_offset=list(offset[::-1]),
        volume_size=list(data.shape[::-1]),
        chunk_size=[64, 64, 32],
    )
    address = f"precomputed://file://{folder.resolve()}"
    volume = CloudVolume(
        address, info=info, compress=False, progress=False, non_aligned_writes=True
    )
    volume.commit_info()
    volume[:, :, :] = data.T[..., None]
