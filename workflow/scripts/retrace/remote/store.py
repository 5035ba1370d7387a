"""What fetching needs of a place with objects, whether a bucket or a mirror of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from retrace.errors import ConfigError, FetchError, nearest
from retrace.files import digest
from retrace.setting_types import Count, Flag, InWords, Text
from retrace.settings_model import NO_EFFECT, SettingsModel


@dataclass(frozen=True)
class S3Object:
    """One object: its name below the prefix, its size in bytes, its ETag without quotes."""

    name: str
    size: int
    etag: str


def listing_digest(items: Iterable[S3Object]) -> str:
    """16 hex digits of names, sizes and ETags: what the server says about its objects."""
    return digest([[item.name, item.size, item.etag] for item in items])


def _without_slashes(value: Any) -> Any:
    return value.strip("/") if isinstance(value, str) else value


Key = Annotated[
    str,
    Field(min_length=1),
    BeforeValidator(_without_slashes),
    InWords("a key of the bucket (funke/hemi/training/eb-inner-groundtruth.zarr)"),
]
"""A key or a folder of a bucket, without slashes at its ends."""


BucketName = Annotated[str, Field(pattern=r"^[^/]+$"), InWords("the name of a bucket")]
PART_BYTES = 64 << 20


class BucketSettings(SettingsModel):
    """A bucket, and how it is read."""

    bucket: BucketName = Field(description="Name of the bucket.")
    endpoint_url: Annotated[Text | None, NO_EFFECT] = Field(
        None, description="Address of the S3 server. null: the public one."
    )
    region: Annotated[Text | None, NO_EFFECT] = Field(
        None, description="Region of the bucket. null: AWS_DEFAULT_REGION, else us-east-1."
    )
    unsigned: Annotated[Flag, NO_EFFECT] = Field(
        True, description="Whether to read without credentials."
    )
    threads: Annotated[Count, NO_EFFECT] = Field(64, description="Concurrent requests.")
    retries: Annotated[Count, NO_EFFECT] = Field(6, description="Attempts for each object.")
    mirror: Annotated[Text | None, NO_EFFECT] = Field(
        None, description="Folder with a copy of the bucket, which is read instead of it."
    )


class FetchSettings(BucketSettings):
    """One folder of a bucket."""

    prefix: Key = Field(description="The folder.")
    arrays: tuple[Text, ...] = Field((), description="Zarr arrays that the folder must have.")


class FetchObjectSettings(BucketSettings):
    """One object of a bucket."""

    key: Key = Field(description="The object's key, with at least one folder.")
    sha256: Text | None = Field(None, description="Its SHA-256. null: that of the first fetch.")
    part_bytes: Annotated[Count, NO_EFFECT] = Field(
        PART_BYTES, description="Bytes that are downloaded at a time."
    )

    def folder(self) -> FetchSettings:
        """The folder of the object; ConfigError for a key without a folder."""
        prefix = self.key.rpartition("/")[0]
        if not prefix:
            raise ConfigError(f"the object's `key` {self.key!r} has no folder; write FOLDER/NAME")
        bucket = {k: v for k, v in self.plain().items() if k in BucketSettings.model_fields}
        return FetchSettings(**bucket, prefix=prefix)


class FetchFileSettings(SettingsModel):
    """One file at an address."""

    url: Text = Field(description="The address.")
    sha256: Text = Field(description="SHA-256 of the file.")


class ObjectStore(Protocol):
    """A place whose objects can be listed and streamed."""

    @property
    def label(self) -> str:
        """The name of this place in messages and in the manifest."""

    def object_label(self, name: str) -> str:
        """The name of one object below the prefix, as for `label`."""

    def objects(self) -> list[S3Object]:
        """All objects below the prefix, sorted by name; FetchError if there are none."""

    def find(self, name: str) -> S3Object:
        """One object below the prefix; FetchError if it does not exist."""

    def stream(self, item: S3Object, byte_range: tuple[int, int] | None = None) -> Any:
        """A context manager whose value iterates over the object's bytes, piece by piece.

        `byte_range`: only this part, as (first byte, number of bytes). TransientError if another
        attempt may succeed, FetchError otherwise.
        """


def not_found(place: str, parent: str, name: str, neighbours: list[str]) -> FetchError:
    """The error for `name` missing below `parent`; it suggests the most similar neighbour."""
    if neighbours:
        return FetchError(f"{place} has no {name!r} under {parent!r}; {nearest(name, neighbours)}")
    return FetchError(
        f"{place} has nothing under {parent or name!r}; correct `bucket` or the dataset's "
        "`bucket: prefix`"
    )
