"""What planning reads of ZNN's network files: the iteration they are at; and copies of them.

Source: seung-lab/znn-release, python/front_end/znetio.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np

from retrace.reading import reading_content
from retrace.replacement import sync_folder

STATISTICS = "processing/znn/train/statistics"
"""The learning curve in a file of the standard-IO layout; in the other one it is a file."""


def statistics_file(net: Path) -> Path:
    """PREFIX_statistics_N.h5 of PREFIX_N.h5, which has the curve of the layout without it."""
    prefix, _, end = net.stem.rpartition("_")
    return net.with_name(f"{prefix}_statistics_{end}.h5")


def stored_iteration(net: Path) -> int:
    """The iteration of a network file, `known_iteration`; 0 where nothing states one."""
    return known_iteration(net) or 0


def known_iteration(net: Path) -> int | None:
    """The iteration of a network file: the last one in its learning curve, else in its name.

    As ZNN finds it: the later of the last test and the last training iteration. None for a network
    without a curve and a number, such as PREFIX_current.h5. DataError for a file that is no h5.
    """
    with reading_content(net, "name an h5 that ZNN wrote"), h5py.File(net, "r") as file:
        if STATISTICS in file and (last := _last(file[STATISTICS])):
            return last
    curve = statistics_file(net)
    if curve.is_file():
        with reading_content(curve, "name an h5 that ZNN wrote"), h5py.File(curve, "r") as file:
            return _last(file)
    step = net.stem.rpartition("_")[2]
    return 0 if step == "init" else int(step) if step.isdecimal() else None


def _last(group: h5py.Group) -> int:
    columns = [group[f"{part}/it"][()] for part in ("train", "test") if f"{part}/it" in group]
    return max((int(np.max(column, initial=0)) for column in columns), default=0)


def copy_with_curve(net: Path, copy: Path) -> None:
    """Copies a network file to `copy`, complete at once, and with a learning curve of its own."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.copyfile(net, partial)
    with reading_content(net, "name an h5 that ZNN wrote"), h5py.File(partial, "a") as file:
        curve = statistics_file(net)
        if STATISTICS not in file and curve.is_file():
            with h5py.File(curve, "r") as source:
                for name in source:
                    source.copy(name, file.require_group(STATISTICS), name)
    partial.replace(copy)
    sync_folder(copy.parent)
