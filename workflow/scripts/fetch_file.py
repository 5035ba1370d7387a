"""Fetches one file from an address and verifies its SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from retrace.errors import FetchError, run
from retrace.files import atomic_write
from retrace.remote.download import human_bytes
from retrace.remote.s3 import READ_BYTES, TransientError, answer, create_session, is_transient

ATTEMPTS = 3
PAUSE_S = 2.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--sha256", required=True, help="64 hex digits")
    parser.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def download(url: str) -> bytes:
    """The content of an address; FetchError where there is none after some attempts."""
    place = urlsplit(url)
    session = create_session(f"{place.scheme}://{place.netloc}", 1)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _once(session, url)
        except TransientError as error:
            if attempt == ATTEMPTS:
                raise FetchError(f"{url} cannot be had ({error})") from error
            time.sleep(PAUSE_S * attempt)
    raise AssertionError


def _once(session: object, url: str) -> bytes:
    with answer(session, url, {}) as found:
        if is_transient(found.status_code):
            raise TransientError(f"the server answered {found.status_code}")
        if found.status_code != 200:
            raise FetchError(f"{url}: the server answered {found.status_code}")
        return b"".join(found.raw.stream(READ_BYTES, decode_content=False))


def fetch(url: str, sha256: str, output: Path) -> None:
    """Writes the file aside, then renames; FetchError says where to put it by hand."""
    by_hand = f"; or get the file elsewhere and put it at {output}"
    try:
        content = download(url)
    except FetchError as error:
        raise FetchError(
            f"{error}; run the same command again where there is network{by_hand}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FetchError(
            f"{url} has sha256 {found}, the dataset's `fetch: sha256` says {sha256}: it is another "
            f"file by now. Correct the dataset{by_hand}"
        )
    atomic_write(output, content)
    print(f"[fetch] {output}: {human_bytes(len(content))}, sha256 {found}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    fetch(args.url, args.sha256, args.output)


if __name__ == "__main__":
    run(main)
