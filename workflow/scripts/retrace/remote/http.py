"""Plain HTTP GET requests through botocore's session, with errors that say whether to try again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from retrace.errors import FetchError
from retrace.limits import ANSWER_S, LEAST_BYTES_PER_S

READ_BYTES = 1 << 20
"""Bytes read at a time. Memory for object data is this, times the number of threads."""
PIECE_BYTES = 1 << 18
"""Bytes of an answer that are taken at a time, at most."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60


class TransientError(Exception):
    """A failure that may not occur at the next attempt. Callers retry; users never see it."""


def ca_bundle() -> str | None:
    """The file with certificates that the environment names, None for the usual ones."""
    return os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")


def create_session(endpoint: str, threads: int) -> Any:
    """An HTTP session with the proxies and certificates of the environment.

    `threads`: connections that it keeps open.
    """
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    options: dict[str, Any] = {
        "verify": ca_bundle() or True,
        "proxies": get_environ_proxies(endpoint),
        "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        "max_pool_connections": threads,
    }
    return URLLib3Session(**options)


@contextmanager
def get_response(session: Any, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """Yields the response to a GET request, with its body not yet read.

    Connection problems, also while the body is read, become TransientError.
    """
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    # botocore copies the headers with dict(), although its annotation asks for another type.
    request_headers: Any = dict(headers)
    try:
        response = session.send(AWSPreparedRequest("GET", url, request_headers, None, True))
        try:
            yield response
        finally:
            # Once the body has been read to its end, its connection is in the pool again.
            response.raw.close()
    except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


def is_transient(status: int, code: str = "") -> bool:
    """Whether a request with this HTTP status, or code of S3, may succeed at the next attempt."""
    return status >= 500 or status in (408, 429) or code in ("SlowDown", "RequestTimeout")


def pieces(response: Any, most: int, name: str) -> Iterator[bytes]:
    """The body of an answer piece by piece, as it was stored.

    FetchError for more than `most` bytes. TransientError for an answer slower than
    LEAST_BYTES_PER_S: one that sends a few bytes before each timeout would never end.
    """
    read = getattr(response.raw, "read1", response.raw.read)
    received, begin = 0, time.monotonic()
    while piece := read(PIECE_BYTES, decode_content=False):
        received += len(piece)
        if received > most:
            raise FetchError(
                f"{name}: the server sends more than the {most} bytes that are expected or, where "
                "the size is unknown, allowed; check the address and the connection"
            )
        yield piece
        seconds = time.monotonic() - begin
        if seconds > ANSWER_S and received < seconds * LEAST_BYTES_PER_S:
            raise TransientError(f"{received} bytes in {seconds:.0f} s are too slow")
