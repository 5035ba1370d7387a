"""Addresses of streamed volumes (s3://, gs://, https://, file://). Standard library only."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from retrace.errors import ConfigError

FORMATS = ("precomputed://", "zarr://")
"""Prefixes that name the format of an address."""
SCHEMES = ("s3://", "gs://", "https://", "http://", "file://")

HOST = re.compile("(?:[a-z0-9]+://)+[^/]*")
"""The begin of an address: format, scheme, and host with its port, or bucket."""


def is_address(path: str | Path) -> bool:
    """Whether a dataset's `path` is an address, whose volume is streamed block by block."""
    return str(path).startswith(FORMATS + SCHEMES)


def plain(address: str) -> str:
    """The address without the prefix of its format and without a slash at its end."""
    for name in FORMATS:
        address = address.removeprefix(name)
    return address.rstrip("/")


def is_zarr(address: str) -> bool:
    """Whether an address opens as zarr: it contains a name ending in .zarr, or starts with zarr://.

    All others open as precomputed layers.
    """
    if address.startswith(FORMATS):
        return address.startswith("zarr://")
    return _names_zarr(address)


def _names_zarr(address: str) -> bool:
    return any(part.endswith(".zarr") for part in plain(address).split("/"))


def zarr_store(address: str, array: str) -> tuple[str, str]:
    """The address of a zarr's store, which ends in .zarr, and the path of the array below it.

    What the groups of the store state about the array can be read then.
    """
    start, *parts = plain(address).split("/")
    store = next((i for i, part in enumerate(parts) if part.endswith(".zarr")), len(parts))
    inner = [*parts[store + 1 :], *filter(None, [array])]
    prefix = next((name for name in FORMATS if address.startswith(name)), "")
    return prefix + "/".join([start, *parts[: store + 1]]), "/".join(inner)


def local_folder(address: str) -> Path | None:
    """The folder of a file:// address, None for others."""
    url = plain(address)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


def path_and_array(text: str) -> tuple[str, str]:
    """Path or address, and array, of PATH:ARRAY; the array is empty where none is named.

    Both may have colons. Of a path on this machine, the longest that exists is taken; of a streamed
    zarr, the shortest that ends in .zarr; else the array comes after the last colon.
    """
    begin = len(HOST.match(text)[0]) if is_address(text) else 0  # type: ignore[index]
    cuts = [at for at, letter in enumerate(text) if letter == ":" and at >= begin]
    heads = [text, *(text[:at] for at in reversed(cuts))]
    path = next((head for head in heads if _is_here(head)), None)
    if path is None and is_address(text):
        path = next((head for head in reversed(heads) if _names_zarr(head)), None)
    if path is None:
        path = heads[1] if cuts else text
        is_layer = is_address(text) and not is_zarr(text)
        # A precomputed layer has no arrays: a colon before a folder belongs to its path.
        path = text if is_layer and "/" in text[len(path) :] else path
    return path, text[len(path) + 1 :]


def _is_here(path: str) -> bool:
    """Whether a path or a file:// address exists on this machine."""
    place = local_folder(path) if is_address(path) else path
    try:
        return place is not None and Path(place).exists()
    except OSError:  # a name too long for this machine
        return False


def bucket_and_key(address: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address; ConfigError if one of them is missing."""
    url = urlsplit(plain(address))
    if not url.netloc or not url.path.strip("/"):
        raise ConfigError(f"{address} names no key in a bucket; write s3://BUCKET/KEY")
    return url.netloc, unquote(url.path).strip("/")


def check_address(address: str, array: str) -> None:
    """Raises ConfigError for an address without a known scheme, or an array of a layer."""
    url = plain(address)
    if not url.startswith(SCHEMES):
        raise ConfigError(f"{address} begins with none of {', '.join(SCHEMES)}")
    if url.startswith("s3://"):
        bucket_and_key(url)
    if array and not is_zarr(address):
        is_here = url.startswith("file:")
        plain_path = ", or leave out file:// if it is a zarr, n5, h5 or tif" if is_here else ""
        raise ConfigError(
            f"{address} opens as a precomputed layer, which has no array {array!r}; write "
            f"zarr://… if it is a zarr{plain_path}"
        )
