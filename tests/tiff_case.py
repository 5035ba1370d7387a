"""Values, and what planning and jobs say of the same tif."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrace.formats.contract import Description
from retrace.formats.headers import read_header
from retrace.formats.source import Source
from retrace.formats.tiff import TifStack
from retrace.planning.volume_layout import source_layout
from retrace.storage.volumes import open_source

SHAPE = (12, 32, 40)
SIZE_NM = (40, 4, 4)
RAW = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
LABELS = np.random.default_rng(2).integers(0, 60000, SHAPE, np.uint16)
CHANNELS = np.stack([RAW, 255 - RAW], 1)


def read_all(path: Path, **settings: Any) -> np.ndarray:
    """The values (Z, Y, X) that a dataset's entry gives; planning knows their shape and type."""
    source = Source(path=str(path), **{"voxel_size_nm": SIZE_NM, **settings})
    volume, layout = open_source(source), source_layout(source)
    assert layout is not None
    assert (layout.shape, layout.dtype) == (volume.array.shape, volume.dtype.name)
    return volume.read(volume.box)


def described(path: Path) -> Description:
    """What planning and the opened array say of a file; both say the same."""
    opened = TifStack(path).description
    assert read_header(str(path)) == opened
    return opened
