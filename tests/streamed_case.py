"""Volumes on an S3 server that tests read through a proxy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import s3_server
from prediction_case import Case
from retrace.storage.volumes import S3Server, Volume, open_volume
from s3_server import Proxy

BUCKET = "volumes"
CHUNKS = 3 * 2 * 2
"""Of the raw (40, 60, 58) in chunks of (16, 32, 32)."""


def upload(folder: Path, endpoint: str, prefix: str) -> None:
    client = s3_server.writer(endpoint)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        key = f"{prefix}/{file.relative_to(folder).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())


def address(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}.zarr"


def opened(request: pytest.FixtureRequest, proxy: Proxy) -> Volume:
    return open_volume(address(request), "volumes/raw", server=S3Server(proxy.endpoint))


def cached_files(cache: Path) -> list[Path]:
    return [path for path in cache.glob("[0-9][0-9]/*") if path.is_file()]


def elsewhere(case: Case, request: pytest.FixtureRequest, proxy: Proxy) -> dict[str, Any]:
    raw = {"path": address(request), "array": "volumes/raw", "endpoint_url": proxy.endpoint}
    return {"volume": {"raw": raw, "roi_nm": None}}


def change(proxy: Proxy, request: pytest.FixtureRequest, chunk: str, source: str) -> None:
    """Replaces a chunk on the server by another one, at least a second later."""
    time.sleep(1.1)  # Last-Modified counts whole seconds
    client, name = s3_server.writer(proxy.upstream), f"{request.node.name}.zarr/volumes/raw"
    body = client.get_object(Bucket=BUCKET, Key=f"{name}/{source}")["Body"].read()
    client.put_object(Bucket=BUCKET, Key=f"{name}/{chunk}", Body=body)
    time.sleep(1.1)
