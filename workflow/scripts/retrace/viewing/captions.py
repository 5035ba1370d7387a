"""Captions of pictures: a layer and its section, and the length of a scale bar."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

FONT_PX = 16
MARGIN_PX = 4
GAP_PX = 9
"""Pixels between two panels of neuroglancer."""


def caption(name: str, section: int, thickness_nm: float) -> str:
    """A layer and the number of its section in world voxels, e.g. `segments, z 12 (240 nm)`."""
    return f"{name}, z {section} ({section * thickness_nm:g} nm)"


def scale_bar_nm(width_nm: float) -> tuple[float, str]:
    """A length of 1, 2 or 5 times a power of ten, up to a quarter of a width; and its text."""
    power = 10.0 ** math.floor(math.log10(width_nm / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_nm / 4)
    return length, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"


def with_captions(png: bytes, captions: Sequence[Sequence[str]]) -> bytes:
    """A PNG with captions in the upper left corners of its panels, row by row.

    The panels of a row have equal widths, and the rows equal heights.
    """
    with Image.open(io.BytesIO(png)) as picture:
        image = picture.convert("RGB")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_PX)
    height = (image.height + GAP_PX) / len(captions)
    for row, texts in enumerate(captions):
        width = (image.width + GAP_PX) / len(texts)
        for column, text in enumerate(texts):
            corner = (round(column * width) + MARGIN_PX, round(row * height) + MARGIN_PX)
            box = draw.textbbox(corner, text, font=font)
            draw.rectangle([box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3], fill="black")
            draw.text(corner, text, font=font, fill="white")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
