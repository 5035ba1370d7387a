"""Files that torch.save wrote, read without running code from them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from retrace.reading import check_archive, is_deep, retried

ZIP_BEGIN = b"PK\x03\x04"
MARKS_A_FOLDER = 0x10
"""Bit of the external attributes of a file in a zip (PKWARE's APPNOTE, 4.4.15; MS-DOS)."""


def read_torch(path: Path) -> Any:
    """The value in a file, tensors on the CPU; ValueError if its bytes differ from its checksums.

    torch itself does not compare them: changed weights would load as other weights. For damaged
    files it raises errors of many types. Tensors are no larger than what is stored of them.
    """
    return retried(lambda: _loaded(path), path)


def _loaded(path: Path) -> Any:
    if _is_zip(path):  # files of versions before 1.6 are not, and have no checksums
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.stat().st_size)  # torch does not compress
            _check_members(archive)
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} differs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old pickles, which are read or refused like others
        value = torch.load(path, map_location="cpu", weights_only=True)
    if is_deep(value):
        raise RecursionError
    for tensor in _tensors(value):
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"it states a tensor {list(tensor.shape)} that it does not store")
    return value


def _is_zip(path: Path) -> bool:
    """Whether torch reads the file as an archive: it looks at the beginning alone.

    `zipfile.is_zipfile` looks at the end, which may be damaged: such a file would be read without
    its checksums.
    """
    with path.open("rb") as file:
        return file.read(len(ZIP_BEGIN)) == ZIP_BEGIN


def _check_members(archive: zipfile.ZipFile) -> None:
    """ValueError for members that torch would read in another way than they are checked.

    torch reads no bytes of a folder, so a tensor in one would keep whatever was in memory. Of two
    files with the same name, apart from upper and lower case, it may read either.
    """
    names = set()
    for member in archive.infolist():
        if member.is_dir() or member.external_attr & MARKS_A_FOLDER:
            raise ValueError(f"its file {member.filename} is marked as a folder")
        if member.filename.casefold() in names:
            raise ValueError(f"it has two files {member.filename}")
        names.add(member.filename.casefold())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a value, those in lists, tuples and dicts too; each list once."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, Mapping | list | tuple | set) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one
