"""Fetches one file from an address and verifies its SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import FetchError, run
from retrace.files import atomic_write, file_sha256, human_bytes
from retrace.limits import OBJECT_BYTES
from retrace.output_lock import fetching_alone
from retrace.records.record import read_finished, running_job, version_of
from retrace.remote.http import (
    TransientError,
    create_session,
    get_response,
    is_transient,
    pieces,
)
from retrace.remote.store import FetchFileSettings
from retrace.settings_model import deciding
from retrace.storage.fetched import refuse_others

ATTEMPTS = 3
PAUSE_S = 2.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser)
    parser.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def download(url: str) -> bytes:
    """The content of a URL; FetchError after ATTEMPTS failed attempts."""
    parts = urlsplit(url)
    session = create_session(f"{parts.scheme}://{parts.netloc}", 1)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _get(session, url)
        except TransientError as error:
            if attempt == ATTEMPTS:
                raise FetchError(f"{url} cannot be downloaded ({error})") from error
            time.sleep(PAUSE_S * attempt)
    raise AssertionError


def _get(session: object, url: str) -> bytes:
    with get_response(session, url, {}) as response:
        if is_transient(response.status_code):
            raise TransientError(f"the server answered {response.status_code}")
        if response.status_code != 200:
            raise FetchError(f"{url}: the server answered {response.status_code}")
        return b"".join(pieces(response, OBJECT_BYTES, url))


def fetch(url: str, sha256: str, output: Path) -> None:
    """Downloads a file and renames it into place; FetchError for another SHA-256."""
    by_hand = f"; or get the file elsewhere and put it at {output}"
    try:
        content = download(url)
    except FetchError as error:
        raise FetchError(
            f"{error}; run the same command again with internet access{by_hand}"
        ) from error
    received = hashlib.sha256(content).hexdigest()
    if received != sha256:
        raise FetchError(
            f"{url} has sha256 {received}, the dataset's `fetch: sha256` says {sha256}: it is "
            f"another file by now. Correct the dataset{by_hand}"
        )
    atomic_write(output, content)
    print(f"[fetch] {output}: {human_bytes(len(content))}, sha256 {received}", flush=True)


def is_fetched(settings: FetchFileSettings, output: Path) -> bool:
    """Whether the file is there; FetchError if another run has just fetched another one."""
    if output.is_file() and file_sha256(output) == settings.sha256:
        print(f"[fetch] {output} is there, sha256 {settings.sha256}", flush=True)
        return True
    job = running_job()
    finished = read_finished(Path(job.planned.record)) if job else None
    if job and finished and version_of(Path(job.planned.record)) != job.planned.found:
        refuse_others(output, finished.record["settings"], deciding(settings))
    return False


def main(argv: Sequence[str] | None = None) -> None:
    """Fetches one file, unless it is there."""
    args = parse_args(argv)
    settings = check(FetchFileSettings, args.settings, "--settings")
    with fetching_alone(args.output):
        if not is_fetched(settings, args.output):
            fetch(settings.url, settings.sha256, args.output)


if __name__ == "__main__":
    run(main)
