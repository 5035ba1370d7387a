"""Sizes of networks of convolution and pooling: what ELEKTRONN's CNNCalculator tells.

Source: ELEKTRONN, elektronn/net/netutils.py (CNNCalculator), as the program computes it; its
documentation gives a field of view of 7 where it is 5. Sizes are voxels, per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from retrace.errors import ConfigError

LARGEST_INPUT = 4999
"""Input sizes that are tried."""
AROUND = 3
"""Valid sizes on either side that an error names."""


@dataclass(frozen=True)
class SizedAxis:
    """One axis of a network: per layer the filter, the pooling, and whether it is by fragments."""

    filters: tuple[int, ...]
    pools: tuple[int, ...]
    fragments: tuple[bool, ...]

    def sizes(self, size: int) -> tuple[list[int], list[int]] | None:
        """Per layer the size before and after pooling; None where an input does not fit.

        A pooling must leave no remainder. Max-fragment pooling by p crops the map by p - 1 for
        each of its p fragments, which then must leave none.
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
        """ConfigError with the valid sizes around an input that does not fit."""
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
        """As ELEKTRONN chooses: the largest valid size up to the desired one, or the smallest."""
        if not self.valid:
            self.check(1, "")
        if desired is None:
            return self.valid[-1]
        fitting = [size for size in self.valid if size <= desired]
        return fitting[-1] if fitting else self.valid[0]

    def input_for(self, output: int) -> int:
        """The smallest input that gives `output` after the last layer (each fragment of it)."""
        for size in self.valid:
            found = self.sizes(size)
            if found and found[1][-1] >= output:
                if found[1][-1] == output:
                    return size
                break
        raise ConfigError(f"no input up to {LARGEST_INPUT} gives an output of {output}")

    @cached_property
    def fields(self) -> list[int]:
        """Field of view after each layer."""
        found, view, jump = [], 1, 1
        for kernel, pool in zip(self.filters, self.pools, strict=True):
            view += (kernel - 1 + pool - 1) * jump
            jump *= pool
            found.append(view)
        return found

    @cached_property
    def strides(self) -> list[int]:
        """Voxels of input between two neighbours, after each layer."""
        found, jump = [], 1
        for pool in self.pools:
            jump *= pool
            found.append(jump)
        return found

    @property
    def overlaps(self) -> list[int]:
        """What the fields of view of two neighbours share, after each layer."""
        return [view - jump for view, jump in zip(self.fields, self.strides, strict=True)]

    @property
    def offset(self) -> float:
        """From the border of the input to the first output, as ELEKTRONN shows it: half a voxel
        more than it uses where the field of view is odd."""
        return self.fields[-1] / 2 if self.fields else 0.0


@dataclass(frozen=True)
class Sizes:
    """A network at an input; every list holds one entry an axis, these one a layer."""

    axes: tuple[SizedAxis, ...]
    input: tuple[int, ...]

    @property
    def unpooled(self) -> list[list[int]]:
        return [self._at(axis, size)[0] for axis, size in zip(self.axes, self.input, strict=True)]

    @property
    def layers(self) -> list[list[int]]:
        return [self._at(axis, size)[1] for axis, size in zip(self.axes, self.input, strict=True)]

    @property
    def output(self) -> list[int]:
        """After the last layer; of fragments, each one's."""
        return [sizes[-1] if sizes else n for sizes, n in zip(self.layers, self.input, strict=True)]

    @property
    def fields(self) -> list[list[int]]:
        return [axis.fields for axis in self.axes]

    @property
    def strides(self) -> list[list[int]]:
        return [axis.strides for axis in self.axes]

    @property
    def overlaps(self) -> list[list[int]]:
        return [axis.overlaps for axis in self.axes]

    @property
    def offset(self) -> list[float]:
        return [axis.offset for axis in self.axes]

    @staticmethod
    def _at(axis: SizedAxis, size: int) -> tuple[list[int], list[int]]:
        found = axis.sizes(size)
        assert found is not None
        return found


def axes_of(
    filters: Sequence[Sequence[int]],
    pools: Sequence[Sequence[int]],
    fragments: Sequence[bool] | None = None,
) -> tuple[SizedAxis, ...]:
    """The axes of a network from its layers' filters and pools, (layers, axes) each."""
    cut = tuple(fragments) if fragments else (False,) * len(filters)
    pairs = zip(zip(*filters, strict=True), zip(*pools, strict=True), strict=True)
    return tuple(SizedAxis(tuple(kernels), tuple(pool), cut) for kernels, pool in pairs)


def sizes_at(axes: Sequence[SizedAxis], size: Sequence[int], names: str = "zyx") -> Sizes:
    """The sizes at exactly this input; ConfigError with the valid ones around it."""
    for axis, n, name in zip(axes, size, names[-len(axes) :], strict=True):
        axis.check(n, name)
    return Sizes(tuple(axes), tuple(size))


def sizes_near(axes: Sequence[SizedAxis], desired: Sequence[int | None]) -> Sizes:
    """The sizes at the input that ELEKTRONN takes for a desired one."""
    return Sizes(tuple(axes), tuple(a.snapped(n) for a, n in zip(axes, desired, strict=True)))


def uncentred(axes: Sequence[SizedAxis], names: str = "zyx") -> list[str]:
    """Axes whose field of view is even: its outputs lie between the voxels of the input."""
    pairs = zip(axes, names[-len(axes) :], strict=True)
    return [name for axis, name in pairs if axis.fields and axis.fields[-1] % 2 == 0]
