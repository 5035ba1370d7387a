"""Opens raw and other images that networks read: uint8, or float in [0, 1]."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from retrace.errors import DataError
from retrace.formats.grey_values import CheckedValues
from retrace.formats.normalize import is_grey_type, needs_channel, needs_polarity
from retrace.formats.source import Source
from retrace.storage.value_checks import check_float, check_raw_type
from retrace.storage.volumes import Volume, open_source


def open_image(source: Source, *, checks_floats: bool = True) -> Volume:
    """Opens an image with its grey values; DataError if it needs another `normalize`.

    `checks_floats`: whether each read of floats checks that they are in [0, 1].
    """
    volume = open_source(source)
    settings = source.normalize
    if volume.is_colour:
        raise DataError(needs_channel(volume.name))
    if volume.inverted and (settings is None or settings.invert is None):
        is_grey = is_grey_type(volume.dtype.name)
        raise DataError(needs_polarity(volume.name, settings, is_grey=is_grey))
    check_raw_type(volume)
    if volume.dtype.kind == "f" and checks_floats:
        array = CheckedValues(volume.array, partial(check_float, volume))
        return replace(volume, array=array)
    return volume
