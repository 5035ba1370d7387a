"""What planning reads of ZNN's network files: the iteration they are at; and copies of them.

Source: seung-lab/znn-release, python/front_end/znetio.
"""

from __future__ import annotations

import filecmp
import glob
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.errors import ConfigError
from retrace.formats.h5_files import opened_h5
from retrace.reading import reading_content
from retrace.replacement import put

if TYPE_CHECKING:
    import h5py

STATISTICS = "processing/znn/train/statistics"
"""The learning curve in a file of the standard-IO layout; in the other one it is a file."""

CURRENT = "current"
"""What the name of the latest network ends in, a copy of that of its iteration."""
COPIED_AT = "retrace_iteration"
"""An attribute of our copies: the iteration of the network that was copied."""


def _opened(path: Path, mode: str = "r") -> AbstractContextManager[h5py.File]:
    """An open h5; ConfigError without h5py, which planning needs for networks of ZNN alone."""
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            f"{path} is read while planning, which needs h5py; install it where Snakemake runs: "
            "python -m pip install h5py"
        ) from None
    return opened_h5(path, read_whole=True) if mode == "r" else h5py.File(path, mode)


def statistics_file(net: Path) -> Path:
    """PREFIX_statistics_N.h5 of PREFIX_N.h5, which has the curve of the layout without it."""
    prefix, _, end = net.stem.rpartition("_")
    return net.with_name(f"{prefix}_statistics_{end}.h5")


def stored_iteration(net: Path) -> int:
    """The iteration of a network file, `known_iteration`; 0 where nothing states one."""
    return known_iteration(net) or 0


def known_iteration(net: Path) -> int | None:
    """The iteration of a network file: the last one in its learning curve, or a later one in its
    name.

    As in ZNN, the curve's is the later of the last test and the last training iteration. It is an
    earlier one than the network's where Num_iter_per_save is no multiple of Num_iter_per_show;
    ZNN repeated the iterations between them. PREFIX_current.h5 has the name of the file that it is
    a copy of. None for a network without a curve and a number. DataError for a file that is no h5.
    """
    in_curve, in_name = _iteration_in_curve(net), _iteration_in_name(net)
    if in_name is None and net.stem.endswith(f"_{CURRENT}"):
        in_name = _iteration_of_copied(net, in_curve or 0)
    known = [iteration for iteration in (in_curve, in_name) if iteration is not None]
    return max(known, default=None)


def _iteration_in_curve(net: Path) -> int | None:
    """The last iteration in the learning curve of a network; None where it has no curve."""
    with reading_content(net, "name an h5 that ZNN wrote"), _opened(net) as file:
        if COPIED_AT in file.attrs:
            return int(file.attrs[COPIED_AT])
        if STATISTICS in file and (last := _last(file[STATISTICS])):
            return last
    curve = statistics_file(net)
    if not curve.is_file():
        return None
    with reading_content(curve, "name an h5 that ZNN wrote"), _opened(curve) as file:
        return _last(file)


def _iteration_in_name(net: Path) -> int | None:
    """The iteration in a name such as PREFIX_21000.h5; None for other names."""
    step = net.stem.rpartition("_")[2]
    return 0 if step == "init" else int(step) if step.isdecimal() else None


def _iteration_of_copied(current: Path, least: int) -> int | None:
    """The iteration above `least` of the network that PREFIX_current.h5 is a copy of."""
    prefix = current.stem.rpartition("_")[0]
    for file in current.parent.glob(f"{glob.escape(prefix)}_*.h5"):
        iteration = _iteration_in_name(file)
        is_later = iteration is not None and iteration > least and file.stem != current.stem
        if is_later and filecmp.cmp(file, current, shallow=False):
            return iteration
    return None


def _last(group: h5py.Group) -> int:
    columns = [group[f"{part}/it"][()] for part in ("train", "test") if f"{part}/it" in group]
    return max((int(max(column, default=0)) for column in columns), default=0)


def copy_with_curve(net: Path, copy: Path) -> None:
    """Copies a network file to `copy`, complete at once, and with a learning curve of its own."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f"{copy.name}.partial")
    iteration = known_iteration(net)
    shutil.copyfile(net, partial)
    with reading_content(net, "name an h5 that ZNN wrote"), _opened(partial, "a") as file:
        if iteration is not None and iteration != (_iteration_in_curve(net) or 0):
            file.attrs[COPIED_AT] = iteration
        curve = statistics_file(net)
        if STATISTICS not in file and curve.is_file():
            with _opened(curve) as source:
                for name in source:
                    source.copy(name, file.require_group(STATISTICS), name)
    put(partial, copy)
