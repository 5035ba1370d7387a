"""Opens raw and other images that networks read: uint8, or float in [0, 1]."""

from __future__ import annotations

from retrace.errors import DataError
from retrace.formats.normalize import needs_channel, needs_polarity
from retrace.formats.source import Source
from retrace.storage.value_checks import check_raw_type
from retrace.storage.volumes import Volume, open_source


def open_image(source: Source) -> Volume:
    """Opens an image with its grey values; DataError if it needs another `normalize`.

    Values of floats are left to `check_raw`, because all of them have to be read.
    """
    volume = open_source(source)
    settings = source.normalize
    if volume.is_colour:
        raise DataError(needs_channel(volume.name))
    if volume.inverted and (settings is None or settings.invert is None):
        raise DataError(needs_polarity(volume.name, settings))
    check_raw_type(volume)
    return volume
