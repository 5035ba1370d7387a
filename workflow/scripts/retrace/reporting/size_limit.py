"""Keeps a page small enough to be sent: reduces its pictures, or else leaves some out."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

from PIL import Image

LIMIT_BYTES = 20_000_000
SCALES = (0.7, 0.5, 0.35)
"""Factors on the sides of pictures, tried in this order."""
JPEG_QUALITY = 75
PICTURE = re.compile(r'<img src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"[^>]*>')
NOTE = "<!-- size -->"
"""Where the template has room for a sentence."""
LEFT_OUT = '<p class="note">Picture left out.</p>'


def within_limit(page: str, limit: int = LIMIT_BYTES) -> str:
    """The page (HTML), with smaller or fewer pictures if it has more than `limit` bytes.

    A sentence says so. Without any picture it may still be larger.
    """
    if _size(page) <= limit:
        return page
    most = f"a page has at most {limit / 1e6:g} MB"
    for scale in SCALES:
        scaled = PICTURE.sub(_scaled(scale), page)
        smaller = _noted(scaled, f"Pictures have {scale:.0%} of their width and height: {most}.")
        if _size(smaller) <= limit:
            return smaller
    fewer = _noted(scaled, f"Pictures are small, and some are left out: {most}.")
    return PICTURE.sub(_kept(limit - _size(PICTURE.sub(LEFT_OUT, fewer))), fewer)


def _size(text: str) -> int:
    return len(text.encode())


def _noted(page: str, sentence: str) -> str:
    return page.replace(NOTE, f'<p class="note">{sentence}</p>', 1)


def _scaled(scale: float) -> Callable[[re.Match[str]], str]:
    """A function that replaces a picture by a smaller one."""

    def replaced(match: re.Match[str]) -> str:
        with Image.open(io.BytesIO(base64.b64decode(match[1]))) as image:
            size = [max(1, round(side * scale)) for side in image.size]
            content = io.BytesIO()
            image.resize((size[0], size[1])).save(content, format="jpeg", quality=JPEG_QUALITY)
        return match[0].replace(match[1], base64.b64encode(content.getvalue()).decode())

    return replaced


def _kept(room: int) -> Callable[[re.Match[str]], str]:
    """A function that keeps the first pictures, for which there is `room`, bytes."""
    left = room

    def replaced(match: re.Match[str]) -> str:
        nonlocal left
        left -= len(match[0]) - len(LEFT_OUT)
        return match[0] if left >= 0 else LEFT_OUT

    return replaced
