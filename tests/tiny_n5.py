"""Small n5 datasets."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
"""By `type`, and zlib for gzip with `useZlib`; blocks of other types are not compressed."""


def write_n5(
    folder: Path, data: np.ndarray, block: tuple[int, int, int], **attributes: Any
) -> Path:
    """Blocks as the format defines them: big-endian header, then values with x fastest."""
    folder.mkdir(parents=True)
    compression = attributes.get("compression", {"type": "gzip"})
    compress = CODECS.get("zlib" if compression.get("useZlib") else compression["type"], bytes)
    content = {
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(block[::-1]),
        "dataType": str(data.dtype),
        "compression": {"type": "gzip", "level": 1},
        **attributes,
    }
    (folder / "attributes.json").write_text(json.dumps(content))
    for z, y, x in np.ndindex(*[-(-s // b) for s, b in zip(data.shape, block, strict=True)]):
        part = data[tuple(slice(i * b, (i + 1) * b) for i, b in zip((z, y, x), block, strict=True))]
        file = folder / str(x) / str(y) / str(z)
        file.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(">HH3I", 0, 3, *part.shape[::-1])
        values = part.astype(part.dtype.newbyteorder(">")).tobytes()
        file.write_bytes(header + compress(values))
    return folder
