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
from retrace.reading import retried

if TYPE_CHECKING:
    import h5py


SOFT_LINKS = 16
"""Links one after the other that HDF5 follows."""


@contextmanager
def opened_h5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only, all of whose content is in it; DataError otherwise.

    For files that are read as a whole, such as weights. Each object is looked at once.
    """
    import h5py

    with retried(lambda: h5py.File(path, "r"), path) as file:
        _refuse_in(path, file, set())
        yield file


def _refuse_in(path: Path, group: h5py.Group, seen: set[int]) -> None:
    """DataError for objects of a group, or of groups in it, whose content is in other files."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            place = f"{group.name.rstrip('/')}/{name}"
            raise _of_other_file(path, place, link, remedy="copy its content into this file")
        if isinstance(link, h5py.SoftLink):
            continue  # to an object of this file, which is looked at where it is, or to nothing
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:  # groups can contain each other
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            _refuse_in(path, item, seen)
        elif isinstance(item, h5py.Dataset):
            refuse_other_files(path, item)


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
