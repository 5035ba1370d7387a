"""Addresses of streamed volumes (s3://, gs://, https://, file://). Standard library only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from retrace.errors import ConfigError

FORMATS = ("precomputed://", "zarr://")
"""Prefixes that name the format of an address."""
SCHEMES = ("s3://", "gs://", "https://", "http://", "file://")


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
    return any(part.endswith(".zarr") for part in plain(address).split("/"))


def local_folder(address: str) -> Path | None:
    """The folder of a file:// address, None for others."""
    url = plain(address)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


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
        raise ConfigError(
            f"{address} opens as a precomputed layer, which has no array {array!r}; write "
            "zarr://… if it is a zarr"
        )
