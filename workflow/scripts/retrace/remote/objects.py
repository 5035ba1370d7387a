"""Single objects of a remote store, or byte ranges of them: S3, HTTP(S) and public Google Storage.

Each block has the time of its last change and the time of the request, both by the server's clock:
between the two, the object certainly had these bytes.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from retrace.errors import ConfigError, DataError, DeniedError, FetchError
from retrace.files import FileCheck, piece_name
from retrace.limits import OBJECT_BYTES, UNPACKED_BYTES
from retrace.reading import retried, unzipped
from retrace.redaction import WITH_CREDENTIALS, has_credentials
from retrace.remote.addresses import bucket_and_key, local_folder, plain
from retrace.remote.download import attempts, is_md5
from retrace.remote.http import (
    TransientError,
    create_session,
    get_response,
    is_transient,
    pieces,
)
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings

RETRIES = 6
NOT_MODIFIED = 304
BROTLI_BYTES = 1 << 16
"""Compressed bytes that are unpacked at a time, so that little more than the limit is unpacked."""
GOOGLE = "https://storage.googleapis.com/"

ByteRange = tuple[int, int | None]
"""(first byte, number of bytes); number None: up to the end; (-n, None): the last n bytes."""


@dataclass(frozen=True)
class Block:
    """An object, or a byte range of one, as the server stores it.

    `stored`: its bytes, None if there is no such object; `encoding`: their Content-Encoding;
    `modified` and `requested`: seconds since 1970, `modified` None if the server does not say.
    """

    stored: bytes | None
    requested: int
    modified: int | None = None
    etag: str = ""
    encoding: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 of the stored bytes, "" if there is no object."""
        return "" if self.stored is None else hashlib.sha256(self.stored).hexdigest()

    def content(self, most: int = UNPACKED_BYTES) -> bytes | None:
        """The bytes without their Content-Encoding; DataError for an unknown encoding.

        ValueError for encoded bytes that are damaged, or decode to more than `most`.
        """
        if self.stored is None or self.encoding in ("", "identity"):
            return self.stored
        if self.encoding == "gzip":
            return unzipped(self.stored, most)
        if self.encoding == "br":
            return unpacked_brotli(self.stored, most)
        raise DataError(f"unknown Content-Encoding {self.encoding!r}; allowed: gzip, br")


def unpacked_brotli(content: bytes, limit: int = UNPACKED_BYTES) -> bytes:
    """The bytes of brotli content; ValueError if it is damaged or has more than `limit` bytes."""
    import brotli

    stream, pieces, size = brotli.Decompressor(), [], 0
    for begin in range(0, len(content), BROTLI_BYTES):
        try:
            pieces.append(stream.process(content[begin : begin + BROTLI_BYTES]))
        except brotli.error as error:
            raise ValueError(str(error)) from error
        size += len(pieces[-1])
        if size > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
    if not stream.is_finished():
        raise ValueError("its compressed data end too early")
    return b"".join(pieces)


class RemoteFolder(Protocol):
    """The objects below one address."""

    @property
    def url(self) -> str:
        """The address with the server; it identifies the objects in the cache and in manifests."""

    def get(
        self, name: str, byte_range: ByteRange | None = None, known: Block | None = None
    ) -> Block:
        """One object, not transferred if it is still `known`.

        TransientError if another attempt may succeed, FetchError otherwise.
        """


def range_header(byte_range: ByteRange | None) -> dict[str, str]:
    """The HTTP header that requests a byte range; empty for a whole object."""
    if byte_range is None:
        return {}
    first, number = byte_range
    if first < 0:
        return {"Range": f"bytes={first}"}
    return {"Range": f"bytes={first}-{'' if number is None else first + number - 1}"}


def _most_bytes(byte_range: ByteRange | None) -> int:
    """Bytes that the answer to a request may have."""
    first, number = byte_range or (0, None)
    requested = -first if first < 0 else number
    return OBJECT_BYTES if requested is None else min(requested, OBJECT_BYTES)


def unless_known(known: Block | None) -> dict[str, str]:
    """The HTTP header that requests an object only if it is not the known one any more."""
    if known is None or not known.etag:
        return {}
    return {"If-None-Match": f'{known.etag}"' if known.etag[:3] == 'W/"' else f'"{known.etag}"'}


def http_date_seconds(date: str | None) -> int | None:
    """An HTTP date as seconds since 1970, None if it is absent or malformed."""
    try:
        return int(parsedate_to_datetime(date).timestamp()) if date else None
    except (TypeError, ValueError):
        return None


def md5_from_headers(headers: Mapping[str, str], etag_is_md5: bool) -> str | None:
    """The hex md5 of the stored bytes according to the response's headers, None if unknown."""
    for word in headers.get("x-goog-hash", "").split(","):
        if word.strip().startswith("md5="):
            return base64.b64decode(word.strip()[4:]).hex()
    # The ETag of an object encrypted with a KMS key looks like an md5 but is not one.
    etag = headers.get("ETag", "").strip('"')
    is_encrypted = "kms" in headers.get("x-amz-server-side-encryption", "")
    return etag if etag_is_md5 and is_md5(etag) and not is_encrypted else None


class HttpFolder:
    """Objects of a web server, or of a public Google Storage bucket."""

    etag_is_md5 = False

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self.session = create_session(url, threads)

    @property
    def url(self) -> str:
        """The address below which the objects are."""
        return self._url

    def address(self, name: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{quote(name, safe='/~')}"

    def signed(self, address: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers of a request, with a signature where the server asks for one."""
        return headers

    def get(
        self, name: str, byte_range: ByteRange | None = None, known: Block | None = None
    ) -> Block:
        """One object or a byte range of it, verified by length and, if the server says it, md5."""
        headers = {
            "Accept-Encoding": "gzip",
            **range_header(byte_range),
            **unless_known(known),
        }
        address = self.address(name)
        with get_response(self.session, address, self.signed(address, headers)) as response:
            requested = http_date_seconds(response.headers.get("Date")) or int(time.time())
            if known is not None and response.status_code == NOT_MODIFIED:
                return replace(known, requested=requested)
            if response.status_code != (206 if byte_range else 200):
                return self._absent(response, name, requested)
            most = _most_bytes(byte_range)
            body = b"".join(pieces(response, most, address))
            return self._checked(response.headers, body, byte_range, requested)

    def _absent(self, response: Any, name: str, requested: int) -> Block:
        """The block of an object that does not exist; raises for any status but 404."""
        if response.status_code != 404:
            self.raise_for_status(response, name)
        return Block(None, requested)

    def raise_for_status(self, response: Any, name: str) -> None:
        """Raises TransientError or FetchError for a response that is not a success."""
        status = response.status_code
        if is_transient(status):
            raise TransientError(f"the server answered {status}")
        raise (DeniedError if status == 403 else FetchError)(
            f"{self.address(name)} is refused with status {status}; correct the address of the "
            "volume (a private bucket of Google Storage cannot be read)"
        )

    def _checked(
        self, headers: Mapping[str, str], body: bytes, byte_range: ByteRange | None, requested: int
    ) -> Block:
        length = headers.get("Content-Length")
        if length is not None and len(body) != int(length):
            raise TransientError(f"truncated: received {len(body)} of {length} bytes")
        md5 = None if byte_range else md5_from_headers(headers, self.etag_is_md5)
        if md5 and hashlib.md5(body, usedforsecurity=False).hexdigest() != md5:
            raise TransientError(f"corrupted: its md5 is not {md5}, which the server states")
        return Block(
            body,
            requested,
            modified=http_date_seconds(headers.get("Last-Modified")),
            etag=headers.get("ETag", "").strip('"'),
            encoding=headers.get("Content-Encoding", ""),
        )


class BucketFolder(HttpFolder):
    """Objects below a key of an S3 bucket."""

    etag_is_md5 = True

    def __init__(self, settings: FetchSettings) -> None:
        self.store = BucketStore(settings)
        self.session = self.store.session
        endpoint = self.store.endpoint.rstrip("/")
        self._url = f"{endpoint}/{settings.bucket}/{settings.prefix}"

    def address(self, name: str) -> str:
        """The URL of an object."""
        return self.store.address(f"{self.store.settings.prefix}/{name}")

    def signed(self, address: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers of a request, with a signature if the bucket is private."""
        return self.store.headers(address, headers)

    def _absent(self, response: Any, name: str, requested: int) -> Block:
        if response.status_code != 404:
            self.raise_for_status(response, name)
        if b"NoSuchBucket" in response.raw.read(4096, decode_content=False):
            raise self.store.refusal("NoSuchBucket", "reading")
        return Block(None, requested)

    def raise_for_status(self, response: Any, name: str) -> None:
        """Raises TransientError or FetchError for a response that is not a success."""
        self.store.raise_for_status(response, f"{self.store.settings.prefix}/{name}")


class LocalFolder:
    """Files below a folder of this machine; NAME.gz holds NAME, as cloud-files writes it."""

    def __init__(self, folder: Path, check: FileCheck | None = None) -> None:
        """`check` is called with each file or range that is read, metadata included."""
        self.folder, self.check = folder, check

    @property
    def url(self) -> str:
        """The folder as file:// address."""
        return f"file://{self.folder}"

    def _name(self, file: Path, byte_range: ByteRange | None, stored: bytes) -> str:
        """What checks call a file, or a range of it that holds the bytes `stored`."""
        name = file.relative_to(self.folder).as_posix()
        if byte_range is None:
            return name
        first = byte_range[0]
        begin = first if first >= 0 else max(0, file.stat().st_size + first)
        return piece_name(name, begin, begin + len(stored))

    def get(
        self, name: str, byte_range: ByteRange | None = None, known: Block | None = None
    ) -> Block:
        """One file or a byte range of it."""
        now, path = int(time.time()), self.folder / name
        for file, encoding in ((path, ""), (path.with_name(f"{path.name}.gz"), "gzip")):
            if file.is_file():
                stored = read_range(file, byte_range)
                if self.check is not None:
                    self.check(self._name(file, byte_range, stored), stored)
                return Block(stored, now, encoding=encoding)
        if self.check is not None:
            self.check(name, None)
        return Block(None, now)


def read_range(file: Path, byte_range: ByteRange | None) -> bytes:
    """The bytes of a file, or a range of them."""
    first, number = byte_range or (0, None)

    def read() -> bytes:
        with file.open("rb") as opened:
            opened.seek(first, 2 if first < 0 else 0)
            return opened.read(-1 if number is None else number)

    return retried(read, file)


def open_folder(
    address: str,
    endpoint_url: str | None,
    unsigned: bool,
    threads: int,
    check: FileCheck | None = None,
) -> RemoteFolder:
    """The objects below an address; `endpoint_url` and `unsigned` apply to s3:// only.

    `check` is called with each file of this machine that is read. ConfigError for an address with
    credentials in it: it identifies what was read.
    """
    if has_credentials(address):
        raise ConfigError(f"{address}: {WITH_CREDENTIALS}")
    folder, url = local_folder(address), plain(address)
    if folder is not None:
        return LocalFolder(folder, check)
    if url.startswith("gs://"):
        return HttpFolder(GOOGLE + url.removeprefix("gs://"), threads)
    if not url.startswith("s3://"):
        return HttpFolder(url, threads)
    bucket, key = bucket_and_key(url)
    settings = FetchSettings(
        bucket=bucket, prefix=key, endpoint_url=endpoint_url, unsigned=unsigned, threads=threads
    )
    return BucketFolder(settings)


def get_block(
    folder: RemoteFolder,
    name: str,
    byte_range: ByteRange | None = None,
    known: Block | None = None,
) -> Block:
    """One object, not transferred if it is still `known`.

    RETRIES attempts at growing intervals; FetchError after the last one.
    """
    problem: Exception | None = None
    for _ in attempts(RETRIES, threading.Event().wait):
        try:
            return folder.get(name, byte_range, known)
        except TransientError as error:
            problem = error
    raise FetchError(
        f"{name!r} of {folder.url} could not be read in {RETRIES} attempts, last: {problem}; check "
        "the internet access and run the same command again, which resumes"
    ) from problem
