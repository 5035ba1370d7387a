"""Decodes the chunks of precomputed layers, once what they state is compared with `info`.

Decoders make room for what a chunk states, which may be gigabytes for a few bytes, so nothing is
decoded that states another size. Formats: github.com/google/neuroglancer,
src/datasource/precomputed/volume.md. Axes are x, y, z here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrace.formats.compressed_segmentation import check_encoding
from retrace.formats.image_headers import check_jpeg, checked_png


def decoded(
    data: bytes, encoding: str, shape: Sequence[int], dtype: np.dtype[Any], block: Any = None
) -> np.ndarray:
    """The values (X, Y, Z, C) of a chunk of this `shape`; ValueError if it is damaged.

    `encoding`: one of `layer_info.ENCODINGS`; `block` (x, y, z): that of compressed_segmentation.
    """
    if encoding == "raw":
        return np.frombuffer(data, dtype).reshape(shape, order="F")
    if encoding == "compressed_segmentation":
        return _ids(data, shape, dtype, block)
    pixels = _jpeg(data, shape) if encoding == "jpeg" else _png(data, shape, dtype)
    x, y, z, channels = shape
    return pixels.reshape(z, y, x, channels).transpose(2, 1, 0, 3)


def _ids(data: bytes, shape: Sequence[int], dtype: np.dtype[Any], block: Any) -> np.ndarray:
    import compressed_segmentation

    check_encoding(data, shape, dtype, block)
    ids: np.ndarray = compressed_segmentation.decompress(data, shape, dtype, block, order="F")
    return ids


def _jpeg(data: bytes, shape: Sequence[int]) -> np.ndarray:
    """The values of a jpeg, (rows, columns, channels)."""
    import simplejpeg

    x, y, z, channels = shape
    check_jpeg(data, x * y * z)
    pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
    return pixels


def _png(data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The values of a png, (rows, columns[, channels])."""
    from PIL import Image

    x, y, z, channels = shape
    content = checked_png(data, x * y * z, channels, dtype.itemsize)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        pixels = np.asarray(image)
    if pixels.dtype != dtype:
        raise ValueError(f"its pixels are {pixels.dtype}, but the layer has {dtype}")
    return pixels
