"""Single objects of a store elsewhere, or parts of them: S3, HTTP(S) and public Google Storage.

Each answer carries when the object was last changed and when it was asked for, both by the
server's clock: between the two the object was certainly what it is.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from retrace.errors import DataError, FetchError
from retrace.remote.addresses import bucket_and_key, local_folder, plain
from retrace.remote.download import attempts, is_md5
from retrace.remote.s3 import (
    READ_BYTES,
    BucketSource,
    FetchSettings,
    TransientError,
    answer,
    create_session,
    is_transient,
)

RETRIES = 6
GOOGLE = "https://storage.googleapis.com/"

Part = tuple[int, int | None]
"""Bytes of an object: (first, number), number None for all that follow; (-n, None): the last n."""


@dataclass(frozen=True)
class Block:
    """One object, or a part of one, as it lay there.

    `stored`: its bytes, None where there is no such object; `encoding`: their Content-Encoding;
    `modified` and `asked`: seconds since 1970, `modified` None where the server does not say.
    """

    stored: bytes | None
    asked: int
    modified: int | None = None
    etag: str = ""
    encoding: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the stored bytes, "" where there is no object."""
        return "" if self.stored is None else hashlib.sha256(self.stored).hexdigest()

    def content(self) -> bytes | None:
        """The bytes as they were before their Content-Encoding; DataError for an unknown one."""
        if self.stored is None or self.encoding in ("", "identity"):
            return self.stored
        if self.encoding == "gzip":
            return gzip.decompress(self.stored)
        if self.encoding == "br":
            import brotli

            return bytes(brotli.decompress(self.stored))
        raise DataError(f"Content-Encoding {self.encoding!r}; gzip and br are read")


class Remote(Protocol):
    """Objects below one address."""

    @property
    def url(self) -> str:
        """The address, server included: what the objects are known by."""

    def get(self, name: str, part: Part | None = None) -> Block:
        """One object; TransientError where another attempt may help, FetchError otherwise."""


def range_header(part: Part | None) -> dict[str, str]:
    """The header of a GET for a part."""
    if part is None:
        return {}
    first, number = part
    if first < 0:
        return {"Range": f"bytes={first}"}
    return {"Range": f"bytes={first}-{'' if number is None else first + number - 1}"}


def seconds(date: str | None) -> int | None:
    """An HTTP date in seconds since 1970, None for none that can be read."""
    try:
        return int(parsedate_to_datetime(date).timestamp()) if date else None
    except (TypeError, ValueError):
        return None


def told_md5(headers: Mapping[str, str], etag_is_md5: bool) -> str | None:
    """The hex md5 of the stored bytes by the answer's headers, None where they do not tell."""
    for word in headers.get("x-goog-hash", "").split(","):
        if word.strip().startswith("md5="):
            return base64.b64decode(word.strip()[4:]).hex()
    # The ETag of an object under a key of KMS has the look of an md5 and is none.
    etag = headers.get("ETag", "").strip('"')
    hidden = "kms" in headers.get("x-amz-server-side-encryption", "")
    return etag if etag_is_md5 and is_md5(etag) and not hidden else None


class HttpRemote:
    """Objects of a web server, or of a public bucket of Google Storage."""

    etag_is_md5 = False

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self.session = create_session(url, threads)

    @property
    def url(self) -> str:
        return self._url

    def address(self, name: str) -> str:
        """Where an object is asked for."""
        return f"{self.url}/{quote(name, safe='/~')}"

    def get(self, name: str, part: Part | None = None) -> Block:
        headers = {"Accept-Encoding": "gzip", **range_header(part)}
        with answer(self.session, self.address(name), headers) as found:
            asked = seconds(found.headers.get("Date")) or int(time.time())
            if found.status_code != (206 if part else 200):
                return self._absent(found, name, asked)
            body = b"".join(found.raw.stream(READ_BYTES, decode_content=False))
            return self._checked(found.headers, body, part, asked)

    def _absent(self, found: Any, name: str, asked: int) -> Block:
        """The block for an object that is not there; raises for every other status."""
        if found.status_code != 404:
            self.refuse(found, name)
        return Block(None, asked)

    def refuse(self, found: Any, name: str) -> None:
        """Raises what the status of an answer means."""
        status = found.status_code
        if is_transient(status):
            raise TransientError(f"the server answered {status}")
        raise FetchError(
            f"{self.address(name)} is refused with status {status}; correct the address of the "
            "volume (a private bucket of Google Storage cannot be read)"
        )

    def _checked(
        self, headers: Mapping[str, str], body: bytes, part: Part | None, asked: int
    ) -> Block:
        length = headers.get("Content-Length")
        if length is not None and len(body) != int(length):
            raise TransientError(f"truncated: {len(body)} of {length} bytes came")
        md5 = None if part else told_md5(headers, self.etag_is_md5)
        if md5 and hashlib.md5(body, usedforsecurity=False).hexdigest() != md5:
            raise TransientError(f"corrupted: its md5 is not {md5}, as the server says")
        return Block(
            body,
            asked,
            modified=seconds(headers.get("Last-Modified")),
            etag=headers.get("ETag", "").strip('"'),
            encoding=headers.get("Content-Encoding", ""),
        )


class BucketRemote(HttpRemote):
    """Objects below a key of an S3 bucket."""

    etag_is_md5 = True

    def __init__(self, settings: FetchSettings) -> None:
        self.source = BucketSource(settings)
        self.session = self.source.session
        endpoint = self.source.endpoint.rstrip("/")
        self._url = f"{endpoint}/{settings.bucket}/{settings.prefix}"

    def address(self, name: str) -> str:
        return self.source.address(f"{self.source.settings.prefix}/{name}")

    def _absent(self, found: Any, name: str, asked: int) -> Block:
        if found.status_code != 404:
            self.refuse(found, name)
        if b"NoSuchBucket" in found.raw.read(4096, decode_content=False):
            raise self.source.refusal("NoSuchBucket", "reading")
        return Block(None, asked)

    def refuse(self, found: Any, name: str) -> None:
        self.source.refuse(found, f"{self.source.settings.prefix}/{name}")


class FolderRemote:
    """Files below a folder of this machine; NAME.gz stands for NAME, as cloud-files writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def get(self, name: str, part: Part | None = None) -> Block:
        now, path = int(time.time()), self.folder / name
        for file, encoding in ((path, ""), (path.with_name(f"{path.name}.gz"), "gzip")):
            if file.is_file():
                return Block(read_part(file, part), now, encoding=encoding)
        return Block(None, now)


def read_part(file: Path, part: Part | None) -> bytes:
    """The bytes of a file, or a part of them."""
    first, number = part or (0, None)
    with file.open("rb") as opened:
        opened.seek(first, 2 if first < 0 else 0)
        return opened.read(-1 if number is None else number)


def open_remote(
    address: str, endpoint_url: str | None, unsigned: bool, threads: int
) -> HttpRemote | FolderRemote:
    """What reads below an address; `endpoint_url` and `unsigned` are for s3:// alone."""
    folder, place = local_folder(address), plain(address)
    if folder is not None:
        return FolderRemote(folder)
    if place.startswith("gs://"):
        return HttpRemote(GOOGLE + place.removeprefix("gs://"), threads)
    if not place.startswith("s3://"):
        return HttpRemote(place, threads)
    bucket, key = bucket_and_key(place)
    settings = FetchSettings(bucket, key, endpoint_url, unsigned=unsigned, threads=threads)
    return BucketRemote(settings)


def get_block(remote: Remote, name: str, part: Part | None = None) -> Block:
    """One object, with attempts further and further apart; FetchError in the end."""
    problem: Exception | None = None
    for _ in attempts(RETRIES, threading.Event().wait):
        try:
            return remote.get(name, part)
        except TransientError as error:
            problem = error
    raise FetchError(
        f"{name!r} of {remote.url} could not be read in {RETRIES} attempts, last: {problem}; check "
        "the network and run the same command again, which goes on where this one was"
    ) from problem
