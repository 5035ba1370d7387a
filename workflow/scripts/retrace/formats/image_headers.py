"""Compares the size in the header of a jpeg or png with that of its chunk.

Decoders make room for what the header says, which may be gigabytes for a chunk of a few bytes.
"""

from __future__ import annotations

import struct

PNG = b"\x89PNG\r\n\x1a\n"
PNG_SIZE = struct.Struct(">II")
"""Width and height, which come after the signature, and length and name of the first part."""


def check_image_size(content: bytes, encoding: str, pixels: int) -> None:
    """ValueError for a jpeg or png of another number of pixels; other encodings pass."""
    if encoding == "jpeg":
        import simplejpeg  # type: ignore[import-untyped]

        height, width, *_ = simplejpeg.decode_jpeg_header(content)
    elif encoding == "png":
        if not content.startswith(PNG) or len(content) < len(PNG) + 8 + PNG_SIZE.size:
            raise ValueError("it is not a png")
        width, height = PNG_SIZE.unpack_from(content, len(PNG) + 8)
    else:
        return
    if width * height != pixels:
        raise ValueError(f"its header says {width} x {height} pixels, but the chunk has {pixels}")
