"""The `info` of precomputed layers: what makes no sense is refused by name, as planning does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from retrace.errors import DataError
from stated_files import opened

INFO: dict[str, Any] = {
    "type": "image",
    "data_type": "uint8",
    "num_channels": 1,
    "scales": [
        {
            "key": "a",
            "encoding": "raw",
            "size": [6, 7, 8],
            "resolution": [4.6, 5, 40],
            "voxel_offset": [1, 2, 3],
            "chunk_sizes": [[6, 7, 8]],
        }
    ],
}


def layer(folder: Path, info: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "info").write_text(json.dumps(info))
    return f"file://{folder}"


def test_x_y_z_become_z_y_x(tmp_path: Path) -> None:
    volume = opened(layer(tmp_path / "layer", INFO))
    assert volume.voxel_size_nm == (40, 5, 4.6)
    assert volume.box.offset == (3, 2, 1)
    assert volume.array.shape == (8, 7, 6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_type", "text"),
        ("data_type", None),
        ("num_channels", 0),
        ("num_channels", "1"),
        ("key", None),
        ("encoding", None),
        ("size", [6, 7]),
        ("size", [-6, 7, 8]),
        ("resolution", [4, 0, 40]),
        ("resolution", ["4", 4, 40]),
        ("resolution", [float("nan"), 4, 40]),
        ("resolution", 4),
        ("voxel_offset", [0, 0]),
        ("chunk_sizes", []),
        ("chunk_sizes", [[0, 7, 8]]),
        ("sharding", {"@type": "unknown"}),
        ("sharding", "yes"),
        ("sharding", {"preshift_bits": 0, "minishard_bits": -1, "shard_bits": 0}),
        ("sharding", {"preshift_bits": 0, "minishard_bits": 60, "shard_bits": 5}),
        ("sharding", {"preshift_bits": 0, "minishard_bits": 1, "shard_bits": None}),
    ],
)
def test_values_of_no_sense_are_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    info = copy.deepcopy(INFO)
    (info if key in INFO else info["scales"][0])[key] = value
    address = layer(tmp_path / "layer", info)
    with pytest.raises(DataError, match=f"`{key}`") as refused:
        opened(address)
    assert "\n" not in str(refused.value)
