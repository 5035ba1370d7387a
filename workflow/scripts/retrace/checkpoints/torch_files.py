"""Files that torch.save wrote, read without running code from them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from retrace.reading import retried


def read_torch(path: Path) -> Any:
    """The value in a file, tensors on the CPU; ValueError if its bytes differ from its checksums.

    torch itself does not compare them: changed weights would load as other weights. For damaged
    files it raises errors of many types.
    """
    return retried(lambda: _loaded(path), path)


def _loaded(path: Path) -> Any:
    if zipfile.is_zipfile(path):  # files of versions before 1.6 are not, and have no checksums
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} differs")
    return torch.load(path, map_location="cpu", weights_only=True)
