"""Compares what a jpeg or png states with its chunk, before anything is decoded.

Decoders make room for what the header says, which may be gigabytes for a chunk of a few bytes.
"""

from __future__ import annotations

import struct

from retrace.limits import JPEG_SCANS

PNG = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = struct.Struct(">IIBB")
"""Width, height, bits and kind of pixels, of the part IHDR."""
PNG_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Kind of pixels, by channels: grey, with alpha, RGB, RGBA."""
PNG_FRAME_BYTES = 12
"""Bytes of a part of a png apart from its content: length, name and checksum."""
SCAN = b"\xff\xda"
"""Begins a scan of a jpeg; in the data of a scan 0xff is followed by other bytes."""


def check_jpeg(content: bytes, pixels: int) -> None:
    """ValueError for a jpeg of another number of pixels, or one that takes long to decode."""
    import simplejpeg

    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    _check_size(width, height, pixels)
    if (scans := content.count(SCAN)) > JPEG_SCANS:
        raise ValueError(f"it has {scans} scans; up to {JPEG_SCANS} are read")


def checked_png(content: bytes, pixels: int, channels: int, itemsize: int) -> bytes:
    """A png without texts and other parts that are not needed for its pixels.

    Such parts may unpack to a thousand times their size. ValueError for another number or kind of
    pixels.
    """
    parts = _png_parts(content)
    headers = [part for name, part in parts if name == b"IHDR"]
    if len(headers) != 1 or len(headers[0]) < PNG_FRAME_BYTES + PNG_HEADER.size:
        raise ValueError("it is not a png")
    width, height, bits, kind = PNG_HEADER.unpack_from(headers[0], PNG_FRAME_BYTES - 4)
    _check_size(width, height, pixels)
    if (bits, kind) != (8 * itemsize, PNG_KINDS[channels]):
        raise ValueError(
            f"its pixels are of kind {kind} with {bits} bits; a chunk of {channels} channels has "
            f"kind {PNG_KINDS[channels]} with {8 * itemsize}"
        )
    return PNG + b"".join(part for name, part in parts if name[:1].isupper())


def _png_parts(content: bytes) -> list[tuple[bytes, bytes]]:
    """The name and the bytes of each part; none for other files."""
    parts, at = [], len(PNG)
    while content.startswith(PNG) and at < len(content):
        size = PNG_FRAME_BYTES + int.from_bytes(content[at : at + 4], "big")
        parts.append((content[at + 4 : at + 8], content[at : at + size]))
        at += size
    return parts


def _check_size(width: int, height: int, pixels: int) -> None:
    if width * height != pixels:
        raise ValueError(f"its header says {width} x {height} pixels, but the chunk has {pixels}")
