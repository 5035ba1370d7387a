"""The public RO-Crate validator, run without internet access."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import requests
from requests_cache import CachedRequest, CachedResponse, CachedSession

CONTEXT = Path(__file__).parent / "data" / "ro-crate-1.1-context.jsonld"
"""RO-Crate's vocabulary as published (CC0), which the validator else asks the network for."""
CONTEXT_URL = "https://w3id.org/ro/crate/1.1/context"
ACCEPT = "application/ld+json, application/json, */*;q=0.1"


def fill_cache(cache: Path) -> None:
    """Puts the vocabulary into the cache that the validator reads with --offline."""
    session = CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1)
    request = requests.Request("GET", CONTEXT_URL, headers={"Accept": ACCEPT}).prepare()
    answer = CachedResponse(
        content=CONTEXT.read_bytes(),
        status_code=200,
        url=CONTEXT_URL,
        headers={"Content-Type": "application/ld+json"},
        request=CachedRequest.from_request(request),
    )
    session.cache.save_response(answer, cache_key=session.cache.create_key(request))
    session.close()


def validate(crate: Path, folder: Path) -> tuple[bool, str]:
    """Whether a crate fulfils the Provenance Run Crate profile, and the validator's report."""
    fill_cache(folder / "cache")
    program = Path(sys.executable).with_name("rocrate-validator")
    done = subprocess.run(
        [
            *(program, "-y", "--disable-color", "validate", crate, "--offline"),
            *("--cache-path", folder / "cache", "-p", "provenance-run-crate-0.5"),
            *("--no-paging", "--verbose"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, done.stdout + done.stderr
