"""Sizes of networks of convolution and pooling, as ELEKTRONN's CNNCalculator computes them.

Source: ELEKTRONN, elektronn/net/netutils.py (CNNCalculator). Its documentation gives a field of
view of 7 where the program, and this module, compute 5. Sizes are voxels, per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from retrace.errors import ConfigError
from retrace.limits import LAYERS

LARGEST_INPUT = 4999
"""Largest input size that is tried."""
AROUND = 3
"""Valid sizes on each side that an error message names."""


@dataclass(frozen=True)
class SizedAxis:
    """One axis of a network: filter and pooling of each layer.

    `fragments`: whether a layer uses max-fragment pooling.
    """

    filters: tuple[int, ...]
    pools: tuple[int, ...]
    fragments: tuple[bool, ...]

    def sizes(self, size: int) -> tuple[list[int], list[int]] | None:
        """The sizes of each layer before and after pooling; None for an input that does not fit.

        A pooling must not leave a remainder. Max-fragment pooling by p first crops the map by
        p - 1 voxels.
        """
        before, after = [], []
        for kernel, pool, cut in zip(self.filters, self.pools, self.fragments, strict=True):
            size -= kernel - 1
            if size < 1 or size % pool != (pool - 1 if cut else 0) or size < pool:
                return None
            before.append(size)
            size //= pool
            after.append(size)
        return before, after

    @cached_property
    def valid(self) -> tuple[int, ...]:
        """All input sizes that fit."""
        return tuple(size for size in range(1, LARGEST_INPUT + 1) if self.sizes(size))

    def check(self, size: int, name: str) -> None:
        """ConfigError with the nearest valid sizes if an input does not fit."""
        if self.sizes(size) is not None:
            return
        below = [v for v in self.valid if v < size][-AROUND:]
        above = [v for v in self.valid if v > size][:AROUND]
        if not below + above:
            raise ConfigError(
                f"no input size up to {LARGEST_INPUT} fits filters {list(self.filters)} and pools "
                f"{list(self.pools)} on axis {name}; use smaller filters, or pools by 2 alone"
            )
        around = ", ".join(map(str, below + above))
        raise ConfigError(
            f"an input of {size} on axis {name} does not fit filters {list(self.filters)} and "
            f"pools {list(self.pools)}; valid sizes around it: {around}"
        )

    def snapped(self, desired: int | None) -> int:
        """ELEKTRONN's choice: the largest valid size up to the desired one, else the smallest."""
        if not self.valid:
            self.check(1, "")
        if desired is None:
            return self.valid[-1]
        fitting = [size for size in self.valid if size <= desired]
        return fitting[-1] if fitting else self.valid[0]

    @cached_property
    def fields(self) -> list[int]:
        """Field of view after each layer."""
        fields, view, stride = [], 1, 1
        for kernel, pool in zip(self.filters, self.pools, strict=True):
            view += (kernel - 1 + pool - 1) * stride
            stride *= pool
            fields.append(view)
        return fields

    @cached_property
    def strides(self) -> list[int]:
        """Input voxels between two neighbouring outputs, after each layer."""
        strides, stride = [], 1
        for pool in self.pools:
            stride *= pool
            strides.append(stride)
        return strides

    @property
    def overlaps(self) -> list[int]:
        """Overlap of the fields of view of two neighbouring outputs, after each layer."""
        return [view - stride for view, stride in zip(self.fields, self.strides, strict=True)]

    @property
    def offset(self) -> float:
        """Distance from the border of the input to the first output, as ELEKTRONN prints it.

        For odd fields of view this is half a voxel more than it uses.
        """
        return self.fields[-1] / 2 if self.fields else 0.0


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network at one input; lists have one entry per axis, inner ones per layer."""

    axes: tuple[SizedAxis, ...]
    input: tuple[int, ...]

    @property
    def unpooled(self) -> list[list[int]]:
        """Before pooling."""
        return [self._at(axis, size)[0] for axis, size in zip(self.axes, self.input, strict=True)]

    @property
    def layers(self) -> list[list[int]]:
        """After pooling."""
        return [self._at(axis, size)[1] for axis, size in zip(self.axes, self.input, strict=True)]

    @property
    def output(self) -> list[int]:
        """After the last layer; the size of each fragment, if there are fragments."""
        return [sizes[-1] if sizes else n for sizes, n in zip(self.layers, self.input, strict=True)]

    @property
    def fields(self) -> list[list[int]]:
        """Fields of view."""
        return [axis.fields for axis in self.axes]

    @property
    def strides(self) -> list[list[int]]:
        """Input voxels between two neighbouring outputs."""
        return [axis.strides for axis in self.axes]

    @property
    def overlaps(self) -> list[list[int]]:
        """Overlaps of neighbouring fields of view."""
        return [axis.overlaps for axis in self.axes]

    @property
    def offset(self) -> list[float]:
        """Distances from the border of the input to the first output."""
        return [axis.offset for axis in self.axes]

    @staticmethod
    def _at(axis: SizedAxis, size: int) -> tuple[list[int], list[int]]:
        sizes = axis.sizes(size)
        assert sizes is not None
        return sizes


def axes_of(
    filters: Sequence[Sequence[int]],
    pools: Sequence[Sequence[int]],
    fragments: Sequence[bool] | None = None,
) -> tuple[SizedAxis, ...]:
    """The axes of a network from the filters and pools of its layers, both (layers, axes)."""
    if len(filters) > LAYERS:
        raise ConfigError(f"there are {len(filters)} layers with filters; allowed: up to {LAYERS}")
    cut = tuple(fragments) if fragments else (False,) * len(filters)
    pairs = zip(zip(*filters, strict=True), zip(*pools, strict=True), strict=True)
    return tuple(SizedAxis(tuple(kernels), tuple(pool), cut) for kernels, pool in pairs)


def sizes_at(axes: Sequence[SizedAxis], size: Sequence[int], names: str = "zyx") -> Sizes:
    """The sizes at exactly this input; ConfigError with the nearest valid inputs."""
    for axis, n, name in zip(axes, size, names[-len(axes) :], strict=True):
        axis.check(n, name)
    return Sizes(tuple(axes), tuple(size))


def sizes_near(axes: Sequence[SizedAxis], desired: Sequence[int | None]) -> Sizes:
    """The sizes at the input that ELEKTRONN chooses for a desired one."""
    return Sizes(tuple(axes), tuple(a.snapped(n) for a, n in zip(axes, desired, strict=True)))


def uncentred(axes: Sequence[SizedAxis], names: str = "zyx") -> list[str]:
    """Axes with an even field of view, whose outputs are between the voxels of the input."""
    pairs = zip(axes, names[-len(axes) :], strict=True)
    return [name for axis, name in pairs if axis.fields and axis.fields[-1] % 2 == 0]
