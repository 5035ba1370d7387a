"""What fetching needs of a place with objects, whether a bucket or a mirror of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from retrace.errors import ConfigError, FetchError, nearest


@dataclass(frozen=True)
class S3Object:
    """One object: its name below the prefix, its size in bytes, its ETag without quotes."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class FetchSettings:
    """What to fetch and how; `prefix` is one folder of the bucket, without a slash at its end."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None
    region: str | None = None
    unsigned: bool = True
    threads: int = 32
    retries: int = 6
    arrays: list[str] = field(default_factory=list)
    mirror: str | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> FetchSettings:
        """Settings from a JSON object; ConfigError for a missing or unknown key."""
        allowed = [f.name for f in fields(cls)]
        for name in values:
            if name not in allowed:
                raise ConfigError(f"unknown fetch setting {name!r}; {nearest(name, allowed)}")
        for name in ("bucket", "prefix"):
            if not str(values.get(name) or "").strip("/"):
                raise ConfigError(f"fetch needs the setting {name!r}; add it to the dataset")
        settings = cls(**{**values, "prefix": str(values["prefix"]).strip("/")})
        if settings.threads < 1 or settings.retries < 1:
            raise ConfigError("`threads` and `retries` of fetch must be 1 or more")
        return settings


class ObjectStore(Protocol):
    """A place whose objects can be listed and streamed."""

    @property
    def label(self) -> str:
        """The name of this place in messages and in the manifest."""

    def objects(self) -> list[S3Object]:
        """All objects below the prefix, sorted by name; FetchError if there are none."""

    def find(self, name: str) -> S3Object:
        """One object below the prefix; FetchError if it does not exist."""

    def stream(self, item: S3Object, byte_range: tuple[int, int] | None = None) -> Any:
        """A context manager whose value iterates over the object's bytes, piece by piece.

        `byte_range`: only this part, as (first byte, number of bytes). TransientError if another
        attempt may succeed, FetchError otherwise.
        """


def safe_name(name: str) -> str:
    """`name`, if it is a relative path; FetchError if it would lead out of the output folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
        raise FetchError(f"object name {name!r} is not a plain relative path; it cannot be stored")
    return name


def not_found(place: str, parent: str, name: str, neighbours: list[str]) -> FetchError:
    """The error for `name` missing below `parent`; it suggests the most similar neighbour."""
    if neighbours:
        return FetchError(f"{place} has no {name!r} under {parent!r}; {nearest(name, neighbours)}")
    return FetchError(
        f"{place} has nothing under {parent or name!r}; correct `bucket` or the dataset's "
        "`bucket: prefix`"
    )
