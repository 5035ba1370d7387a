"""What a folder without tifs is, for the message that refuses it. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from retrace.errors import MachineError, first_names
from retrace.formats.zarr_folder import ZARR_FILES
from retrace.reading import json_if_intact

TIF_SUFFIXES = (".tif", ".tiff")
OTHER_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".jp2", ".webp")
H5_SUFFIXES = (".h5", ".hdf", ".hdf5")
VOLUMES = (".zarr", ".n5", *H5_SUFFIXES)
WKW_HEADER = "header.wkw"
"""The file in each folder of chunks in WEBKNOSSOS's own format."""
MOST_FOLDERS = 1000
"""Folders that are looked into for a message."""
MOST_NAMED = 4
DEPTH = 3
"""Levels of folders that are searched: WEBKNOSSOS has layers, and levels in them."""


def is_hidden(path: Path) -> bool:
    """Whether a name is left out of a folder, as the ._ files of macOS."""
    return path.name.startswith(".")


UNKNOWN = "put the sections there, or correct the path"


def instead_of_tifs(folder: Path) -> str:
    """What a folder without tifs is and what to do, as the end of a message."""
    try:
        return _instead_of_tifs(folder)
    except (OSError, MachineError):  # of a folder inside that this user may not read
        return UNKNOWN


def _instead_of_tifs(folder: Path) -> str:
    place = folder.absolute()
    if _is_layer(folder):
        return f"it is a precomputed layer, which opens as an address: write file://{place}"
    if _is_layer(place.parent):
        return (
            f"it is part of a precomputed layer: write file://{place.parent}, and choose a level "
            "with `mip`"
        )
    if images := _images(folder):
        return (
            f"its images are {images}, which are not read; convert them to tif, for example in "
            "Fiji with File > Import > Image Sequence, and File > Save As > Tiff"
        )
    below = list(islice(_below(folder), MOST_FOLDERS))
    volumes = [path for path in below if _is_volume(path)]
    if volumes:
        names = first_names([str(path.relative_to(folder)) for path in volumes], MOST_NAMED)
        one = place / volumes[0].relative_to(folder)
        address = f"file://{one}" if _is_layer(one) else str(one)
        return f"it contains volumes ({names}); name one of them as the path: {address}"
    if any((path / WKW_HEADER).is_file() for path in (folder, *below)):
        return (
            "it is a volume of WEBKNOSSOS in its format wkw, which is not read; export it as zarr "
            "or tif, and name that"
        )
    return UNKNOWN


def _images(folder: Path) -> str:
    """The most frequent suffix of images of other formats; empty without any."""
    suffixes = Counter(
        path.suffix.lower()
        for path in folder.iterdir()
        if path.suffix.lower() in OTHER_IMAGES and not is_hidden(path)
    )
    return suffixes.most_common(1)[0][0] if suffixes else ""


def _below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Files that are volumes, and folders, in the order of their names; volumes are not entered."""
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() and not is_hidden(path)
        if is_folder or _is_volume(path):
            yield path
        if is_folder and depth > 1 and not _is_volume(path):
            yield from _below(path, depth - 1)


def _is_volume(path: Path) -> bool:
    """Whether a path opens as a volume: a zarr, an n5, an h5, a layer, or a folder of tifs."""
    if path.suffix.lower() in VOLUMES:
        return True
    if not path.is_dir():
        return False
    has_tifs = any(p.suffix.lower() in TIF_SUFFIXES and not is_hidden(p) for p in path.iterdir())
    is_zarr = any((path / name).is_file() for name in ZARR_FILES)
    return (
        has_tifs or is_zarr or _has_key(path / "attributes.json", "dimensions") or _is_layer(path)
    )


def _is_layer(folder: Path) -> bool:
    """Whether a folder is a precomputed layer of images or labels."""
    return _has_key(folder / "info", "scales")


def _has_key(file: Path, key: str) -> bool:
    return file.is_file() and key in json_if_intact(file)
