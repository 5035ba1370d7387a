"""Files that torch.save wrote, read without running code from them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from retrace.reading import check_archive, is_deep, retried


def read_torch(path: Path) -> Any:
    """The value in a file, tensors on the CPU; ValueError if its bytes differ from its checksums.

    torch itself does not compare them: changed weights would load as other weights. For damaged
    files it raises errors of many types. Tensors are no larger than what is stored of them.
    """
    return retried(lambda: _loaded(path), path)


def _loaded(path: Path) -> Any:
    if zipfile.is_zipfile(path):  # files of versions before 1.6 are not, and have no checksums
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.stat().st_size)  # torch does not compress
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} differs")
    value = torch.load(path, map_location="cpu", weights_only=True)
    if is_deep(value):
        raise RecursionError
    for tensor in _tensors(value):
        is_plain = tensor.layout == torch.strided
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"it states a tensor {list(tensor.shape)} that it does not store")
    return value


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
