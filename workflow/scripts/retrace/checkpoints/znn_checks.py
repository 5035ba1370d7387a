"""Checks of ZNN's network files: what each layer and the learning curve must hold.

Source: seung-lab/znn-release, python/front_end/znetio, which checks nothing and reads past the end
of arrays that do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.checkpoints.usable import unusable_weight
from retrace.errors import DataError, nearest
from retrace.znn.graph import EDGE_TYPES, NODE_TYPES

VELOCITY = "momentum_vol"
RANKS = {"filters": 5, "biases": 1}
"""Axes of what layers learn; their velocities have the same."""
LEARNED = {"conv": "filters", "transfer": "biases"}
"""What the layers of a type learn; those of other types learn nothing."""
TYPES = {"node": NODE_TYPES, "edge": EDGE_TYPES}
"""Types of layers, by `group_type`."""
COLUMNS = ("it", "err", "cls")
"""Columns of a learning curve that have a value for each row."""


def check_layer(
    path: Path, name: str, fields: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> None:
    """DataError for a layer that holds what ZNN cannot have written, or what diverged.

    `fields`: its texts. `arrays`: filters (I, O, s0, s1, s2) or biases (n,), the velocity of the
    same shape, the size.
    """
    fault = next(_faults(fields, arrays), None)
    if fault is not None:
        raise DataError(f"{path}: layer {name!r} {fault}; take another file of this network")


def _faults(fields: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What is wrong with a layer, each as the end of a sentence about it."""
    for key in set(RANKS) & set(arrays):
        yield from _value_faults(key, arrays[key], RANKS[key])
        if VELOCITY in arrays:
            yield from _value_faults(VELOCITY, arrays[VELOCITY], RANKS[key])
            yield from _shape_faults(VELOCITY, arrays[VELOCITY].shape, key, arrays[key].shape)
        if "size" in arrays:
            own = arrays[key].shape[2:] if key == "filters" else arrays[key].shape
            yield from _shape_faults("size", np.atleast_1d(arrays["size"]).tolist(), key, own)
    yield from _type_faults(fields, arrays)


def _value_faults(key: str, values: np.ndarray, rank: int) -> Iterator[str]:
    """Faults unless `values` are usable real numbers with `rank` axes, as ZNN stores them."""
    if values.dtype not in (np.float32, np.float64):
        yield f"has {key} of type {values.dtype}; ZNN writes float32 or float64"
    elif values.ndim != rank or not values.size:
        axes = "inputs, outputs, z, y, x" if rank == RANKS["filters"] else "maps"
        yield f"has {key} of shape {list(values.shape)}; allowed: ({axes}), each from 1"
    elif fault := unusable_weight({key: torch.from_numpy(values)}):
        yield f"{fault.removeprefix(key).strip()} ({key}), so its training diverged"


def _shape_faults(key: str, shape: Sequence[int], other: str, own: Sequence[int]) -> Iterator[str]:
    """A fault if two datasets that belong together disagree."""
    if list(shape) != list(own):
        yield f"has {key} {list(shape)}, but {other} {list(own)}; they must be equal"


def _type_faults(fields: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Faults unless the layer has a type of ZNN's, and what layers of this type learn."""
    group, kind = fields.get("group_type", ""), fields.get("type", "")
    if group not in TYPES:
        yield f"has the group_type {group!r}; {nearest(group, TYPES)}"
        return
    if kind not in TYPES[group]:
        yield f"has the type {kind!r}; {nearest(kind, TYPES[group])}"
    learned = LEARNED.get(kind, "")
    if learned and learned not in arrays:
        yield f"is of type {kind} and has no {learned}"
    for spare in sorted((set(RANKS) & set(arrays)) - {learned}):
        yield f"is of type {kind} and has {spare}, which this type has not"


def check_curve(path: Path, curve: Mapping[str, Any]) -> None:
    """DataError unless the columns of a curve {split: {column: (rows,)}} belong together."""
    for split in ("train", "test"):
        fault = next(_curve_faults(curve.get(split, {})), None)
        if fault is not None:
            raise DataError(
                f"{path}: the learning curve `{split}` {fault}; take another file of this network"
            )


def _curve_faults(columns: Any) -> Iterator[str]:
    """What is wrong with one part of a curve, as the end of a sentence about it."""
    if not isinstance(columns, Mapping):
        yield "is no group of columns"
        return
    present = {key: np.asarray(columns[key]) for key in COLUMNS if key in columns}
    if present and "it" not in present:
        yield "has no column `it`, the iterations"
        return
    for key, values in present.items():
        if values.ndim != 1 or values.shape != present["it"].shape:
            yield f"has {key} of shape {list(values.shape)}; allowed: one value for each iteration"
        if values.dtype.kind not in "iuf":
            yield f"has {key} of type {values.dtype}; allowed: real numbers"
    steps = present.get("it", np.zeros(0))
    for wrong in steps[~((steps >= 0) & (steps == np.floor(steps)) & (steps < np.inf))]:
        yield f"holds iteration {wrong}; allowed: whole numbers from 0"
