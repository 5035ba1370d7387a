"""Small files with metadata of many conventions, opened as planning and as jobs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.planning.volume_layout import source_layout
from retrace.storage.volumes import Volume, open_source

RAW = np.random.default_rng(0).integers(1, 255, (12, 32, 40), dtype=np.uint8)
CFG = [40, 4, 4]


def opened(path: Path, array: str = "", **settings: Any) -> Volume:
    """The opened source, after a check that planning says the same of it."""
    source = Source(path=str(path), array=array, **settings)
    try:
        planned = source_layout(source)
    except DataError as error:
        with pytest.raises(DataError) as other:
            open_source(source)
        assert str(other.value) == str(error)
        raise
    volume = open_source(source)
    assert planned is not None
    assert (planned.voxel_size_nm, planned.offset_nm) == (volume.voxel_size_nm, volume.offset_nm)
    assert planned.shape == tuple(volume.array.shape)
    return volume


def zarr_with(path: Path, attributes: dict[str, Any], data: np.ndarray = RAW) -> Path:
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, attributes=attributes)
    array[...] = data
    return path


def ome_zarr(path: Path, axes: list[Any], scale: list[float], move: list[float] | None) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=RAW.shape, dtype="u1")[...] = RAW
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    steps += [] if move is None else [{"type": "translation", "translation": move}]
    image = {"version": "0.4", "axes": axes}
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [image | {"datasets": datasets}]
    return path


def space(unit: str | None = None) -> list[dict[str, str]]:
    return [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in "zyx"]


def n5(path: Path, attributes: dict[str, Any]) -> Path:
    (path / "0/0").mkdir(parents=True)
    header = b"\0\0\0\3" + b"".join(n.to_bytes(4, "big") for n in RAW.shape[::-1])
    (path / "0/0/0").write_bytes(header + RAW.tobytes())
    size = list(RAW.shape[::-1])
    fixed = {"dimensions": size, "blockSize": size, "dataType": "uint8"}
    fixed["compression"] = {"type": "raw"}
    (path / "attributes.json").write_text(json.dumps(fixed | attributes))
    return path
