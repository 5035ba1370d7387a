"""Opens HDF5 files, and refuses what would be read from other files of this machine.

An HDF5 file can name any path in links, external storage and virtual datasets. Nothing would notice
that such a file changes, and its content is not what the user has named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.errors import DataError
from retrace.limits import UNPACKED_BYTES, counted
from retrace.reading import retried

if TYPE_CHECKING:
    import h5py


SOFT_LINKS = 16
"""Links one after the other that HDF5 follows."""


@contextmanager
def opened_h5(path: Path, *, read_whole: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file, read-only, all of whose content is in it; DataError otherwise.

    `read_whole`: all of it is read into memory, as of weights, and must not be too large for that.
    No object may then have two names, as it would be read for each of them.
    """
    import h5py

    with retried(lambda: h5py.File(path, "r"), path) as file:
        datasets = list(_datasets(path, file, set(), named_once=read_whole))
        if read_whole:
            refuse_large(path, datasets)
        yield file


def refuse_large(path: Path, datasets: Sequence[h5py.Dataset]) -> None:
    """DataError for datasets that are far larger in memory than their file is.

    HDF5 stores values that were never written not at all, and others compressed; many texts can be
    one and the same in the file.
    """
    most = max(UNPACKED_BYTES, path.stat().st_size)
    size = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets if dataset.size)
    texts = [d.name for d in datasets if d.dtype.hasobject and (d.size or 0) > 1]
    if size > most or texts:
        what = (
            f"has a list of texts, {texts[0]!r}" if texts else f"has {counted(size)} bytes unpacked"
        )
        raise DataError(
            f"{path} {what}; up to {most} bytes of numbers are read. Get the file again, or name "
            "another one"
        )


def _datasets(
    path: Path, group: h5py.Group, seen: set[int], *, named_once: bool
) -> Iterator[h5py.Dataset]:
    """The datasets of a group and of groups in it, each once; DataError for other files' values.

    `named_once`: also for a second name of an object.
    """
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            place = f"{group.name.rstrip('/')}/{name}"
            raise _of_other_file(path, place, link, remedy="copy its content into this file")
        # A soft link leads to nothing, or to an object of this file, which is looked at there.
        item = None if isinstance(link, h5py.SoftLink) else group[name]
        address = None if item is None else h5py.h5o.get_info(item.id).addr
        if address is None or address in seen:  # groups can contain each other
            if named_once:
                raise DataError(
                    f"{path}: {name!r} in {group.name} is another name of an object in the file; "
                    "save it with each object once"
                )
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(path, item, seen, named_once=named_once)
        elif isinstance(item, h5py.Dataset):
            refuse_other_files(path, item)
            yield item


def refuse_external_links(path: Path, file: h5py.File, name: str, most: int = SOFT_LINKS) -> None:
    """DataError if the way to an object leads through a link to another file."""
    import h5py

    parts = name.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        place = "/".join(parts[:count])
        link = file.get(place, getlink=True) if place in file else None
        if isinstance(link, h5py.ExternalLink):
            raise _of_other_file(path, name, link, parts[count:])
        if isinstance(link, h5py.SoftLink) and most:
            group = [] if link.path.startswith("/") else parts[: count - 1]
            refuse_external_links(path, file, "/".join([*group, link.path]), most - 1)


def _of_other_file(
    path: Path,
    name: str,
    link: h5py.ExternalLink,
    inside: Sequence[str] = (),
    remedy: str = "name that file as `path` and that dataset as `array`",
) -> DataError:
    """The error for a link; `inside`: the path from its target to the object."""
    target = "/".join((link.path.rstrip("/"), *inside))
    return DataError(f"{name!r} in {path} is a link to {target!r} in {link.filename}; {remedy}")


def refuse_other_files(path: Path, dataset: h5py.Dataset) -> None:
    """DataError for a dataset whose values are in other files."""
    if dataset.is_virtual or dataset.external:
        name = dataset.name
        raise DataError(
            f"the values of {name!r} in {path} are in other files (a virtual or external dataset); "
            "copy them into one file, for example with h5py: "
            f"h5py.File('copy.h5', 'w').create_dataset({name!r}, data=file[{name!r}], chunks=True)"
        )
