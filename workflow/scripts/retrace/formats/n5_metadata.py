"""What the attributes of an n5 dataset say. Converts the format's x, y, z to z, y, x.

Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.errors import DataError
from retrace.formats.attributes import stated_axes
from retrace.formats.contract import ByteOrder, Description


def describe_n5(attributes: Mapping[str, Any]) -> Description:
    """The description of a dataset, with the file's x, y, z in the order z, y, x."""
    shape = tuple(reversed(attributes["dimensions"]))
    stated = {key: _reversed(key, value) for key, value in attributes.items()}
    dtype = str(attributes["dataType"])
    order: ByteOrder = "none" if dtype in ("int8", "uint8") else "big"
    axes = stated_axes(stated)
    letters, written = axes or (None, "")
    if letters is not None and len(letters) != len(shape):
        raise DataError(f"{written} does not name each of the {len(shape)} axes of shape {shape}")
    return Description(
        shape, dtype, order, letters, written, stated, completeness="every chunk is listed"
    )


def _reversed(key: str, value: Any) -> Any:
    """A list of an attribute in the order z, y, x; `transform` names its own axes."""
    if key == "pixelResolution" and isinstance(value, dict):
        return {name: _reversed("", inner) for name, inner in value.items()}
    return value[::-1] if isinstance(value, list) and key != "transform" else value
