"""Addresses of volumes that lie elsewhere: what they look like. Standard library only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from retrace.errors import ConfigError

FORMATS = ("precomputed://", "zarr://")
"""What may stand before an address to say its format."""
SCHEMES = ("s3://", "gs://", "https://", "http://", "file://")


def is_address(path: str | Path) -> bool:
    """Whether a `path` of a dataset names something that is read block by block where it lies."""
    return str(path).startswith(FORMATS + SCHEMES)


def plain(address: str) -> str:
    """The address without its format and without a slash at its end."""
    for name in FORMATS:
        address = address.removeprefix(name)
    return address.rstrip("/")


def is_zarr(address: str) -> bool:
    """Whether an address is that of a zarr: it says so, or a part of it ends in .zarr."""
    if address.startswith(FORMATS):
        return address.startswith("zarr://")
    return any(part.endswith(".zarr") for part in plain(address).split("/"))


def local_folder(address: str) -> Path | None:
    """The folder on this machine that an address names, None for one elsewhere."""
    place = plain(address)
    return Path(place.removeprefix("file://")) if place.startswith("file://") else None


def bucket_and_key(address: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address; ConfigError where one is missing."""
    found = urlsplit(plain(address))
    if not found.netloc or not found.path.strip("/"):
        raise ConfigError(f"{address} names no key in a bucket; s3://BUCKET/KEY is needed")
    return found.netloc, unquote(found.path).strip("/")


def check_address(address: str, array: str) -> None:
    """Refuses an address that nothing can be read from (ConfigError)."""
    place = plain(address)
    if not place.startswith(SCHEMES):
        raise ConfigError(f"{address} begins with none of {', '.join(SCHEMES)}")
    if place.startswith("s3://"):
        bucket_and_key(place)
    if array and not is_zarr(address):
        raise ConfigError(
            f"{address} is read as a precomputed layer, which has no array {array!r}; write "
            "zarr://… where it is a zarr"
        )
