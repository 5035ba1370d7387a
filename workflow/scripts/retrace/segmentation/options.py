"""What the fragment step is told, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.geometry import Triple, triple
from retrace.segmentation.agglomerate import MERGE_FUNCTIONS

MUTEX = "mutex"
DIRECT_NEIGHBORS = ([-1, 0, 0], [0, -1, 0], [0, 0, -1])
METHODS = (*MERGE_FUNCTIONS, MUTEX)


@dataclass(frozen=True)
class SegmentSettings:
    """Settings of fragments and agglomeration; lengths in voxels (z, y, x), scores in [0, 1]."""

    method: str = "hist_quant_75"
    """A merge function of waterz, or "mutex"."""
    fragments_in_xy: bool = False
    """Watershed section by section: for voxels much longer in z."""
    epsilon: float = 0.0
    """Fragments that join below this quantile-25 score are joined at once; 0 is off."""
    filter_fragments: float = 0.0
    """Fragments of a lower mean affinity become background; 0 is off."""
    neighborhood: tuple[tuple[int, ...], ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    block_shape: Triple | None = None
    """None: the whole volume at once."""
    block_context: Triple = (32, 32, 32)
    """What a block sees beyond its border."""
    boundary: str | None = None
    """The array whose channel 0 is the inside of cells, of a prediction without affinities."""
    mutex_bias: tuple[float, float] = (0.5, 0.5)
    """Affinity above which direct neighbours, and long-range ones, attract."""

    @property
    def is_mutex(self) -> bool:
        return self.method == MUTEX

    @property
    def merge_function(self) -> str:
        """The merge function of waterz."""
        return self.method


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    value = settings.get(key, default)
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"`{key}` is {value!r}; give a number from 0 (off) to 1")
    return float(value)


def _neighborhood(settings: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    given = [list(offset) for offset in settings.get("neighborhood", DIRECT_NEIGHBORS)]
    if given[:3] != [list(offset) for offset in DIRECT_NEIGHBORS]:
        raise ConfigError(
            f"the first three affinities must be the direct neighbours {list(DIRECT_NEIGHBORS)} "
            f"(z, y, x), the network's `neighborhood` begins with {given[:3]}"
        )
    return tuple(tuple(map(int, offset)) for offset in given)


def _biases(value: Sequence[float]) -> tuple[float, float]:
    if len(value) != 2 or not all(0 < bias < 1 for bias in value):
        raise ConfigError(
            f"`mutex_bias` is {list(value)}; give [direct, long-range], both between 0 and 1"
        )
    return float(value[0]), float(value[1])


def read_settings(settings: Mapping[str, Any]) -> SegmentSettings:
    """The settings from the JSON of the command line; ConfigError names key, value and choice."""
    known = {*SegmentSettings.__dataclass_fields__, "thresholds", "tissue_mask"}
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown segmentation setting {key!r}; {nearest(key, known)}")
    method = settings.get("method", SegmentSettings.method)
    if method not in METHODS:
        raise ConfigError(f"no segmentation method {method!r}; {nearest(method, METHODS)}")
    block = settings.get("block_shape")
    if block and method == MUTEX:
        raise ConfigError("method 'mutex' needs the whole volume: set `block_shape: null`")
    return SegmentSettings(
        method=method,
        fragments_in_xy=bool(settings.get("fragments_in_xy", False)),
        epsilon=_number(settings, "epsilon", 0.0),
        filter_fragments=_number(settings, "filter_fragments", 0.0),
        neighborhood=_neighborhood(settings),
        boundary=settings.get("boundary"),
        block_shape=triple(block) if block else None,
        block_context=triple(settings.get("block_context", SegmentSettings.block_context)),
        mutex_bias=_biases(settings.get("mutex_bias", SegmentSettings.mutex_bias)),
    )
