"""The server of the volumes, the proxy before it, and the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import s3_server
from prediction_case import Case, make_case
from retrace.remote.block_cache import FOLDER_VARIABLE, GIB_VARIABLE
from s3_server import Proxy
from streamed_case import BUCKET, upload


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.serving() as address:
        s3_server.put_objects(address, BUCKET, {})
        yield address


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    with s3_server.spoiling(endpoint) as faulty:
        yield faulty


@pytest.fixture
def case(tmp_path: Path, endpoint: str, request: pytest.FixtureRequest) -> Case:
    """A prediction whose raw is also on the server, below this test's name."""
    prepared = make_case(tmp_path)
    upload(prepared.raw, endpoint, f"{request.node.name}.zarr")
    return prepared


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(GIB_VARIABLE, "0.1")
    return tmp_path / "cache"
