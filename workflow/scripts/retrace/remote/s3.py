"""Where objects come from: a bucket (boto3), or a folder with the same keys for offline use."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from retrace.errors import ConfigError, FetchError, nearest

READ_BYTES = 1 << 20
"""Bytes held per transfer; times the threads, this is the memory that object data takes."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60


class TransientError(Exception):
    """A failure that another attempt may mend; never leaves the transfer."""


@dataclass(frozen=True)
class S3Object:
    """One object: its name below the prefix, its size in bytes, its ETag without quotes."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class FetchSettings:
    """What a fetch reads; `prefix` names one folder in the bucket, without trailing slash."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None
    region: str | None = None
    unsigned: bool = True
    threads: int = 32
    retries: int = 6
    arrays: list[str] = field(default_factory=list)
    bundle: str | None = None

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


class Source(Protocol):
    """A place that lists objects once and streams each of them."""

    @property
    def label(self) -> str:
        """How messages and the manifest name this place."""

    def objects(self) -> list[S3Object]:
        """All objects below the prefix, by name; FetchError where there is none."""

    def find(self, name: str) -> S3Object:
        """One object below the prefix; FetchError where it is absent."""

    def stream(self, item: S3Object, part: tuple[int, int] | None = None) -> Any:
        """A context manager whose value iterates over the object's bytes.

        `part`: of these bytes only (first, number).
        """


def open_source(settings: FetchSettings) -> Source:
    """The bundle where one is configured, the bucket otherwise."""
    return FolderSource(settings) if settings.bundle else BucketSource(settings)


def safe_name(name: str) -> str:
    """`name` as a relative path; FetchError for a key that would leave the output folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
        raise FetchError(f"object name {name!r} is no plain relative path; it cannot be stored")
    return name


def create_client(settings: FetchSettings) -> Any:
    """A boto3 client: anonymous unless `unsigned` is false; path addressing for own endpoints."""
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    session = botocore.session.get_session()
    # Nobody asks when an object was made, and reading the dates is a third of a listing's cost.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)

    config = Config(
        signature_version=UNSIGNED if settings.unsigned else None,
        max_pool_connections=settings.threads,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": settings.retries},
        s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
    )
    try:
        return boto3.Session(botocore_session=session).client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region or os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
            config=config,
        )
    except ValueError as error:
        raise ConfigError(f"{error}; correct `endpoint_url` in config/config.yaml") from error


def create_session(endpoint: str, threads: int) -> Any:
    """What sends plain GETs to a server, with the proxies and certificates of the environment."""
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    ca_bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    options: dict[str, Any] = {
        "verify": ca_bundle or True,
        "proxies": get_environ_proxies(endpoint),
        "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        "max_pool_connections": threads,
    }
    return URLLib3Session(**options)


@contextmanager
def answer(session: Any, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """What a server answers to a GET, its body unread; TransientError where the way is at fault."""
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    # The session copies them as a dict, which botocore's own annotation does not say.
    sent: Any = dict(headers)
    try:
        found = session.send(AWSPreparedRequest("GET", url, sent, None, True))
        try:
            yield found
        finally:
            # A connection whose answer was read to its end is back in the pool by now.
            found.raw.close()
    except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


def is_transient(status: int) -> bool:
    """Whether a server that answers so may answer otherwise the next time."""
    return status >= 500 or status in (408, 429)


class BucketSource:
    """Objects of a bucket. boto3 lists and addresses them; its HTTP session carries the bytes.

    Each GET goes straight through botocore's session: get_object around it costs four times
    the processor time for small chunks, and it is that time which limits the rate nearby.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.client = create_client(settings)
        self.base_url = self._presigned("x").removesuffix("x") if settings.unsigned else None
        self.session = create_session(self.endpoint, settings.threads)

    @property
    def endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    @property
    def label(self) -> str:
        return f"s3://{self.settings.bucket}/{self.settings.prefix}/ at {self.endpoint}"

    def _presigned(self, key: str) -> str:
        target = {"Bucket": self.settings.bucket, "Key": key}
        return str(self.client.generate_presigned_url("get_object", Params=target))

    def _pages(self, **query: Any) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        paginator = self.client.get_paginator("list_objects_v2")
        try:
            yield from paginator.paginate(Bucket=self.settings.bucket, **query)
        except ClientError as error:
            raise self.refusal(error.response["Error"].get("Code", ""), "listing") from error
        except BotoCoreError as error:
            raise FetchError(
                f"{self.endpoint} does not answer ({error}); check the network and `endpoint_url` "
                "in config/config.yaml, or use a bundle (docs/how-to/offline.md)"
            ) from error

    def objects(self) -> list[S3Object]:
        prefix = self.settings.prefix + "/"
        found: list[S3Object] = []
        for page in self._pages(Prefix=prefix):
            for entry in page.get("Contents", []):
                name = entry["Key"].removeprefix(prefix)
                # Consoles leave empty objects that end in "/" where someone made a folder.
                if not name.endswith("/") and name:
                    tag = entry["ETag"].strip('"')
                    found.append(S3Object(safe_name(name), entry["Size"], tag))
        if not found:
            raise self._nothing_there()
        return sorted(found, key=lambda item: item.name)

    def find(self, name: str) -> S3Object:
        prefix = self.settings.prefix + "/"
        beside: list[str] = []
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            for entry in page.get("Contents", []):
                if entry["Key"] == prefix + name:
                    return S3Object(safe_name(name), entry["Size"], entry["ETag"].strip('"'))
                beside.append(entry["Key"].removeprefix(prefix))
        raise nothing_found(f"bucket {self.settings.bucket!r}", prefix[:-1], name, beside)

    def _nothing_there(self) -> FetchError:
        parent, _, last = self.settings.prefix.rpartition("/")
        folders: list[str] = []
        for page in self._pages(Prefix=f"{parent}/" if parent else "", Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                folders.append(entry["Prefix"].rstrip("/").rpartition("/")[2])
        return nothing_found(f"bucket {self.settings.bucket!r}", parent, last, folders)

    def refusal(self, code: str, doing: str) -> FetchError:
        """The error for what S3 calls `code`."""
        bucket = self.settings.bucket
        if code in ("NoSuchBucket", "404"):
            return FetchError(
                f"there is no bucket {bucket!r} at {self.endpoint}; correct `bucket` or "
                "`endpoint_url` in config/config.yaml"
            )
        if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return FetchError(
                f"access denied ({code}) while {doing} in bucket {bucket!r} at {self.endpoint}; "
                "a private bucket needs `unsigned: false` and credentials in the environment"
            )
        return FetchError(f"{self.endpoint} refused {doing} in bucket {bucket!r}: {code}")

    def address(self, key: str) -> str:
        """Where a key is asked for."""
        return self.base_url + quote(key, safe="/~") if self.base_url else self._presigned(key)

    @contextmanager
    def stream(
        self, item: S3Object, part: tuple[int, int] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The object's bytes in pieces; TransientError where another attempt may help."""
        key = f"{self.settings.prefix}/{item.name}"
        headers = {"Range": f"bytes={part[0]}-{sum(part) - 1}"} if part else {}
        with answer(self.session, self.address(key), headers) as found:
            if found.status_code != (206 if part else 200):
                self.refuse(found, key)
            yield found.raw.stream(READ_BYTES, decode_content=False)

    def refuse(self, found: Any, key: str) -> None:
        """Raises what the status of a GET means."""
        text = found.raw.read(4096, decode_content=False).decode(errors="replace")
        match = re.search(r"<Code>([^<]+)</Code>", text)
        code = match.group(1) if match else str(found.status_code)
        status = found.status_code
        if is_transient(status) or code in ("SlowDown", "RequestTimeout"):
            raise TransientError(f"the server answered {status} {code}")
        if status in (301, 307):
            region = found.headers.get("x-amz-bucket-region", "another")
            raise FetchError(f"bucket {self.settings.bucket!r} lies in region {region}; set it")
        if code == "NoSuchKey":
            raise FetchError(
                f"object {key!r} was listed but is gone from bucket {self.settings.bucket!r}; run "
                "the same command again"
            )
        raise self.refusal(code, f"reading {key!r}")


def nothing_found(where: str, parent: str, last: str, folders: list[str]) -> FetchError:
    """The error for an empty prefix; offers what lies beside it."""
    if folders:
        return FetchError(f"{where} has no {last!r} under {parent!r}; {nearest(last, folders)}")
    return FetchError(
        f"{where} has nothing under {parent or last!r}; correct `bucket` or the dataset's "
        "`bucket: prefix`"
    )


def file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class FolderSource:
    """A bundle: BUNDLE/KEY holds the object of that key, e.g. brought on a disk."""

    def __init__(self, settings: FetchSettings) -> None:
        assert settings.bundle is not None
        self.root, self.prefix = Path(settings.bundle), settings.prefix
        self.folder = self.root.joinpath(*PurePosixPath(self.prefix).parts)

    @property
    def label(self) -> str:
        return f"bundle {self.folder}"

    def objects(self) -> list[S3Object]:
        if not self.root.is_dir():
            raise FetchError(f"the bundle {self.root} is no folder; correct --bundle")
        if not self.folder.is_dir():
            parent, _, last = self.prefix.rpartition("/")
            beside = self.folder.parent
            names = [p.name for p in beside.iterdir() if p.is_dir()] if beside.is_dir() else []
            raise nothing_found(f"bundle {self.root}", parent, last, names)
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(8) as pool:
            return [
                S3Object(path.relative_to(self.folder).as_posix(), path.stat().st_size, md5)
                for path, md5 in zip(files, pool.map(file_md5, files), strict=True)
            ]

    def find(self, name: str) -> S3Object:
        path = self.folder / safe_name(name)
        if not path.is_file():
            beside = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
            raise nothing_found(f"bundle {self.root}", self.prefix, name, beside)
        return S3Object(name, path.stat().st_size, file_md5(path))

    @contextmanager
    def stream(
        self, item: S3Object, part: tuple[int, int] | None = None
    ) -> Iterator[Iterator[bytes]]:
        try:
            file = (self.folder / item.name).open("rb")
        except FileNotFoundError as error:
            raise FetchError(f"{self.folder / item.name} vanished from the bundle") from error
        with file:
            first, size = part or (0, item.size)
            file.seek(first)
            yield _pieces(file, size)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file, piece by piece."""
    while size and (piece := file.read(min(size, READ_BYTES))):
        size -= len(piece)
        yield piece
