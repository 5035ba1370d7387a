"""Axes of an array in the order (c), z, y, x, whatever their order and number in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrace.errors import DataError
from retrace.formats.contract import Description
from retrace.formats.stated_axes import usual_axes

if TYPE_CHECKING:
    import numpy as np

OUTER_AXES = "uvwt"
"""Letters of axes of length 1 before (c, z, y, x), which have no effect on what is read."""

NUMBERS = ("uint", "int", "float", "bool")
"""How the names of types begin that are read."""


@dataclass(frozen=True)
class Arrangement:
    """Which stored axis becomes which axis of the result; the other axes are read at one index."""

    axes: str
    """A letter for each stored axis."""
    kept: str
    """The axes of the result: zyx or czyx."""
    channel: int = 0
    """The index along c, if c is not kept."""
    makes_ids: bool = False
    """Whether the colours along c become ids, which have the axes zyx."""

    @property
    def order(self) -> list[int]:
        """For each axis of the result, its number in the file."""
        return [self.axes.index(letter) for letter in self.kept]

    @property
    def is_as_stored(self) -> bool:
        """Whether the file already has the axes of the result."""
        return self.axes == self.kept

    def dtype(self, stored: str) -> str:
        """The type of the result; `stored`: that of the file."""
        return "uint32" if self.makes_ids else stored

    def shape(self, stored: Sequence[int]) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(stored[axis] for axis in self.order)


def arrange(
    name: str,
    file: Description,
    configured: str | None,
    channel: int | None,
    *,
    drops_channel: bool = False,
) -> Arrangement:
    """The axes that are read; DataError if they are unknown or contradict the file's.

    `configured`: the setting `axes`. `channel`: the one to read; None for all. `drops_channel`:
    whether a single channel becomes no axis of the result, as some files demand. Colours without a
    channel become ids.
    """
    if not file.dtype.startswith(NUMBERS):
        raise DataError(
            f"{name} holds {file.dtype}; allowed: whole numbers, floats, bool. Convert it"
        )
    axes = _stored_axes(name, file, configured)
    sizes = dict(zip(axes, file.shape, strict=True))
    for letter, size in sizes.items():
        if letter not in "czyx" and size != 1:
            others = ", or store them along z if they are sections" if sizes["z"] == 1 else ""
            raise DataError(
                f"{name} has {size} entries along its axis {letter!r} (axes {axes}); copy one of "
                f"them into a file of its own{others}"
            )
    count = sizes.get("c", 1)
    if channel is not None and channel >= count:
        raise DataError(f"{name} has {count} channels, numbered from 0; there is no {channel}")
    if file.is_colour and channel is None and axes.index("c") == _colour_axis(file):
        return Arrangement(axes, "zyx", makes_ids=True)
    drops_single = drops_channel or file.drops_channel
    is_dropped = channel is not None or (drops_single and count == 1)
    kept = "czyx" if "c" in sizes and not is_dropped else "zyx"
    return Arrangement(axes, kept, channel or 0)


def _colour_axis(file: Description) -> int:
    """The number of the stored axis with red, green and blue."""
    return len(file.shape) - 1 if file.axes is None else file.axes.index("c")


def _stored_axes(name: str, file: Description, configured: str | None) -> str:
    """A letter for each stored axis."""
    dimensions = len(file.shape)
    if configured is not None:
        return _configured_axes(name, file, configured)
    if file.axes is not None:
        return file.axes
    if file.axes_written:
        raise DataError(
            f"{name}: its axes are stated as {file.axes_written}, which are not t, c, z, y and x; "
            "add the setting `axes` with a letter for each stored axis"
        )
    if file.is_colour:
        return "zyxc"
    outer = file.shape[:-4]
    if set(outer) == {1} and len(outer) <= len(OUTER_AXES):
        return OUTER_AXES[-len(outer) :] + "czyx"
    if dimensions not in (3, 4):
        raise DataError(
            f"{name} has shape {file.shape}; (z, y, x) or (c, z, y, x) is needed, or the setting "
            "`axes` with a letter for each stored axis (tczyx)"
        )
    return usual_axes(dimensions)


def _configured_axes(name: str, file: Description, configured: str) -> str:
    """The axes of the configuration, and those of length 1 that only the file names."""
    if file.axes is not None:
        named = [
            letter
            for letter, size in zip(file.axes, file.shape, strict=True)
            if letter in configured or size != 1
        ]
        if "".join(named) == configured:
            return file.axes
        raise DataError(
            f"{name}: two statements of its axes contradict each other: {file.axes_written} in the "
            f"file (shape {file.shape}), and `axes: {configured}` in the config; leave out `axes`"
        )
    if len(configured) == len(file.shape) + 1:
        configured = configured.replace("t", "")  # a tif does not store an axis of length 1
    if len(configured) != len(file.shape):
        raise DataError(
            f"{name} has {len(file.shape)} axes {file.shape}, the config says "
            f"`axes: {configured}`; name each stored axis once"
        )
    return configured


def innermost(array: Any) -> Any:
    """The array that a reader gives, of an array that other ones may be wrapped around."""
    while (inner := getattr(array, "array", None)) is not None:
        array = inner
    return array


class ArrangedArray:
    """An array of any axes and byte order, read as (Z, Y, X) or (C, Z, Y, X) of this machine's."""

    def __init__(self, array: Any, arrangement: Arrangement) -> None:
        import numpy as np

        self.array, self._how = array, arrangement
        self.shape = arrangement.shape(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
        self.reader = getattr(array, "reader", None)
        chunks = getattr(array, "chunks", None) or getattr(array, "block_shape", None)
        if chunks is not None:  # those of a layer are (z, y, x), whatever its channels
            chunks = arrangement.shape((*[1] * (len(array.shape) - len(chunks)), *chunks))
        self.chunks = chunks

    def __getitem__(self, key: Any) -> np.ndarray:
        """Voxels of slices ([c,] z, y, x); fewer slices take all of the last axes."""
        import numpy as np

        key = key if isinstance(key, tuple) else (key,)
        how, order = self._how, self._how.order
        stored: list[Any] = [slice(0, 1)] * len(how.axes)
        if "c" in how.axes:
            stored[how.axes.index("c")] = slice(how.channel, how.channel + 1)
        for number, axis in enumerate(order):
            part = key[number] if number < len(key) else slice(None)
            stored[axis] = part if isinstance(part, slice) else slice(part, part + 1)
        values = np.asarray(self.array[tuple(stored)], self.dtype)
        others = [axis for axis in range(len(how.axes)) if axis not in order]
        values = values.transpose([*order, *others]).reshape([values.shape[a] for a in order])
        return values[tuple(0 if not isinstance(k, slice) else slice(None) for k in key)]
