"""Labels and segmentations from anywhere as (Z, Y, X)."""

from __future__ import annotations

from dataclasses import replace

from retrace.errors import DataError
from retrace.formats.arrangement import ArrangedArray, Arrangement
from retrace.storage.volumes import Volume


def single_channel(volume: Volume) -> Volume:
    """The volume (Z, Y, X) without its channel axis of length 1, the first one or the last.

    DataError for several channels: labels and segmentations have none.
    """
    if not volume.channels:
        return volume
    shape = tuple(volume.array.shape)
    axes = "czyx" if shape[0] == 1 else "zyxc"
    if shape[axes.index("c")] != 1:
        raise DataError(
            f"{volume.name} has shape {shape}, which is {shape[0]} channels; labels, segmentations "
            "and masks have the axes z, y, x: save one channel as an array of its own"
        )
    return replace(volume, array=ArrangedArray(volume.array, Arrangement(axes, "zyx")))
