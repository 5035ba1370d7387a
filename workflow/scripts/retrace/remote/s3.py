"""Objects of an S3 bucket: listed with boto3, read with plain GET requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import quote

from retrace.errors import DeniedError, FetchError
from retrace.limits import EMPTY_PAGES, LISTED_OBJECTS
from retrace.reading import DamagedError, reading_content
from retrace.redaction import redacted
from retrace.remote.http import (
    READ_BYTES,
    TransientError,
    create_session,
    get_response,
    is_transient,
    pieces,
)
from retrace.remote.object_names import safe_name
from retrace.remote.obstore_reads import ObstoreReader
from retrace.remote.s3_client import create_client, naming_the_cause, no_listing, signature
from retrace.remote.store import FetchSettings, S3Object, not_found

CORRECT_CREDENTIALS = (
    "correct the credentials in the environment or ~/.aws/credentials, or set `unsigned: true` for "
    "a public bucket"
)
HINTS = 1000
"""Names of other objects among which an error message looks for a similar one."""
WRONG_CREDENTIALS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidToken": "the session token is malformed",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "AuthorizationHeaderMalformed": "the request is signed for another region; set `region`",
}
"""What S3's error codes about credentials mean."""


class BucketStore:
    """Objects of a bucket. boto3 lists and addresses them, obstore reads them if they are small.

    For small chunks, the processor time of a GET limits the rate. Through obstore it takes a
    third of that through botocore's session, which takes a quarter of that of boto3's get_object.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.client, self._aws_session = create_client(settings)
        self.root = self._root()
        self.session = create_session(self.root, settings.threads)
        self._reader: ObstoreReader | None = None
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """The server's address, for messages."""
        return redacted(str(self.client.meta.endpoint_url))

    @property
    def label(self) -> str:
        """Bucket, prefix and server, for messages and the manifest."""
        return self.object_label("")

    def object_label(self, name: str) -> str:
        """Bucket, key and server of one object."""
        return f"s3://{self.settings.bucket}/{self.settings.prefix}/{name} at {self.endpoint}"

    def _root(self) -> str:
        """The address that a key is appended to."""
        target = {"Bucket": self.settings.bucket, "Key": "x"}
        with naming_the_cause(self.endpoint):
            address = str(self.client.generate_presigned_url("get_object", Params=target))
        return address.partition("?")[0].removesuffix("x")

    def _pages(self, **query: Any) -> Iterator[dict[str, Any]]:
        """The pages of a listing; FetchError if the server refuses or does not answer."""
        from botocore.exceptions import ClientError

        paginator = self.client.get_paginator("list_objects_v2")
        try:
            with reading_content(self.endpoint), naming_the_cause(self.endpoint):
                pages = paginator.paginate(Bucket=self.settings.bucket, **query)
                yield from self._bounded(pages)
        except DamagedError as error:
            if isinstance(error.__cause__, ClientError):
                code = error.__cause__.response["Error"].get("Code", "")
                raise self.refusal(code, "listing") from error
            raise self._no_listing(error.fault) from error

    def _bounded(self, pages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The pages; FetchError for a listing without an end."""
        listed, empty = 0, 0
        for page in pages:
            count = len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
            listed, empty = listed + count, 0 if count else empty + 1
            if listed > LISTED_OBJECTS or empty > EMPTY_PAGES:
                most = f"{LISTED_OBJECTS} objects, or {EMPTY_PAGES} pages without any"
                raise self._no_listing(f"it lists more than {most}")
            yield page

    def _listed(self, **query: Any) -> Iterator[dict[str, Any]]:
        """The entries of a listing; FetchError for a listing that no S3 server makes."""
        seen: set[str] = set()
        for page in self._pages(**query):
            for entry in page.get("Contents", []):
                if not {"Key", "Size"} <= set(entry) or not entry["Key"].startswith(
                    query["Prefix"]
                ):
                    raise self._no_listing("an entry has no size, or another prefix")
                if entry["Key"] in seen:
                    raise self._no_listing(f"it lists {entry['Key']!r} twice")
                seen.add(entry["Key"])
                yield entry

    def _no_listing(self, why: object) -> FetchError:
        return no_listing(self.endpoint, why)

    def objects(self) -> list[S3Object]:
        """All objects below the prefix, sorted by name; FetchError if there are none."""
        prefix = self.settings.prefix + "/"
        items: list[S3Object] = []
        for entry in self._listed(Prefix=prefix):
            name = entry["Key"].removeprefix(prefix)
            # Web consoles create an empty object with a name ending in "/" for a new folder.
            if (name.endswith("/") or not name) and not entry["Size"]:
                continue
            items.append(_object(entry, name))
        if not items:
            raise self._no_such_prefix()
        return sorted(items, key=lambda item: item.name)

    def find(self, name: str) -> S3Object:
        """One object below the prefix; FetchError if it does not exist."""
        prefix = self.settings.prefix + "/"
        neighbours: list[str] = []
        for entry in self._listed(Prefix=prefix, Delimiter="/"):
            if entry["Key"] == prefix + name:
                return _object(entry, name)
            if len(neighbours) < HINTS:
                neighbours.append(entry["Key"].removeprefix(prefix))
        raise not_found(f"bucket {self.settings.bucket!r}", prefix[:-1], name, neighbours)

    def _no_such_prefix(self) -> FetchError:
        parent, _, last = self.settings.prefix.rpartition("/")
        folders: list[str] = []
        pages = self._pages(Prefix=f"{parent}/" if parent else "", Delimiter="/")
        for page in islice(pages, 1):
            for entry in page.get("CommonPrefixes", []):
                folders.append(entry["Prefix"].rstrip("/").rpartition("/")[2])
        return not_found(f"bucket {self.settings.bucket!r}", parent, last, folders)

    def refusal(self, code: str, action: str) -> FetchError:
        """The error for an S3 error code; `action`: what was refused, such as "listing"."""
        bucket = self.settings.bucket
        if code in ("NoSuchBucket", "404"):
            return FetchError(
                f"there is no bucket {bucket!r} at {self.endpoint}; correct `bucket` or "
                "`endpoint_url` in config/config.yaml"
            )
        where = f"while {action} in bucket {bucket!r} at {self.endpoint}"
        if code in WRONG_CREDENTIALS:
            return FetchError(f"{WRONG_CREDENTIALS[code]} ({code}) {where}; {CORRECT_CREDENTIALS}")
        if code in ("AccessDenied", "403"):
            remedy = (
                "a private bucket needs `unsigned: false` and credentials in the environment"
                if self.settings.unsigned
                else "these credentials may not read it; use others, or ask the bucket's owner"
            )
            return DeniedError(f"access denied ({code}) {where}; {remedy}")
        return FetchError(f"{self.endpoint} refused {action} in bucket {bucket!r}: {code}")

    def address(self, key: str) -> str:
        """The URL of a key. It contains no signature, because messages name it."""
        return self.root + quote(key, safe="/~")

    def headers(self, address: str, more: Mapping[str, str]) -> dict[str, str]:
        """The headers of a GET request, with a signature if the bucket is private."""
        if self.settings.unsigned:
            return dict(more)
        return {**more, **signature(self._aws_session, address, self.client.meta.region_name)}

    @property
    def reader(self) -> ObstoreReader:
        """What reads the objects, made when the first one is read."""
        with self._lock:
            if self._reader is None:
                session = None if self.settings.unsigned else self._aws_session
                region = str(self.client.meta.region_name)
                self._reader = ObstoreReader(self.root, region, self.settings.threads, session)
        return self._reader

    @contextmanager
    def stream(
        self, item: S3Object, byte_range: tuple[int, int] | None = None
    ) -> Iterator[Iterator[bytes | memoryview]]:
        """Yields the object's bytes, or (first byte, number of bytes) of them, piece by piece.

        TransientError if another attempt may succeed, FetchError otherwise.
        """
        key = f"{self.settings.prefix}/{item.name}"
        if byte_range is None and item.size <= READ_BYTES:
            content = self.reader.read(key, item.size)
            if content is not None:
                yield iter([content])
                return
        part = {"Range": f"bytes={byte_range[0]}-{sum(byte_range) - 1}"} if byte_range else {}
        address = self.address(key)
        with get_response(self.session, address, self.headers(address, part)) as response:
            if response.status_code != (206 if byte_range else 200):
                self.raise_for_status(response, key)
            most = byte_range[1] if byte_range else item.size
            yield pieces(response, most, self.object_label(item.name))

    def raise_for_status(self, response: Any, key: str) -> None:
        """Raises TransientError or FetchError for a GET response that is not a success."""
        text = response.raw.read(4096, decode_content=False).decode(errors="replace")
        match = re.search(r"<Code>([^<]+)</Code>", text)
        code = match.group(1) if match else str(response.status_code)
        status = response.status_code
        if is_transient(status, code):
            raise TransientError(f"the server answered {status} {code}")
        if status in (301, 307):
            region = response.headers.get("x-amz-bucket-region", "another")
            raise FetchError(f"bucket {self.settings.bucket!r} is in region {region}; set `region`")
        if code == "NoSuchKey":
            raise FetchError(
                f"object {key!r} was listed but is gone from bucket {self.settings.bucket!r}; run "
                "the same command again"
            )
        raise self.refusal(code, f"reading {key!r}")


def _object(entry: dict[str, Any], name: str) -> S3Object:
    """An entry of a listing as an object; without an ETag, nothing is known of its bytes."""
    return S3Object(safe_name(name), entry["Size"], entry.get("ETag", "").strip('"'))
