"""Fetching 200 objects of 64 KiB from a bucket 30 ms away: ours, the tutorial's loop, obstore's
concurrent reads, and boto3's transfer manager. Only ours verifies and writes a manifest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import side_by_side
from side_by_side import ROOT, Comparison, Contender, Work

OBJECTS, OBJECT_BYTES, DELAY_MS, CONCURRENT = 200, 1 << 16, 30, 64
BUCKET, PREFIX, ARRAY = "open-neurodata", "funke/benchmark/volume.zarr", "volumes/raw"


def make(folder: Path) -> Callable[[], None]:
    """Starts a server; its address is in the file `endpoint`."""
    array = folder / "served" / BUCKET / PREFIX / ARRAY
    array.mkdir(parents=True)
    metadata = {"zarr_format": 2, "shape": [OBJECTS * OBJECT_BYTES], "chunks": [OBJECT_BYTES]}
    metadata |= {"dtype": "|u1", "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    (array / ".zarray").write_text(json.dumps(metadata))
    for index in range(OBJECTS):
        (array / str(index)).write_bytes(os.urandom(OBJECT_BYTES))
    program = ROOT / "benchmarks" / "bucket_server.py"
    command = [sys.executable, str(program), str(folder / "served"), "--delay-ms", str(DELAY_MS)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    (folder / "endpoint").write_text(server.stdout.readline().strip())

    def stop() -> None:
        server.kill()
        server.wait()

    return stop


def emptied(output: Path) -> Path:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    return output


def contents(output: Path) -> Callable[[], dict[str, str]]:
    """SHA-256 of every object that was written, by name."""
    import hashlib

    def read() -> dict[str, str]:
        files = [file for file in output.rglob("*") if file.is_file()]
        named = {f.relative_to(output).as_posix().partition("volume.zarr/")[2]: f for f in files}
        return {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in named.items() if n}

    return read


def ours(folder: Path) -> Work:
    side_by_side.ours()
    import boto3  # noqa: F401  imported on first use otherwise

    import fetch
    from retrace.remote.store import FetchSettings

    endpoint = (folder / "endpoint").read_text()
    settings = FetchSettings(bucket=BUCKET, prefix=PREFIX, endpoint_url=endpoint, arrays=(ARRAY,))

    def work() -> Any:
        output = emptied(folder / "ours")
        fetch.fetch(settings, output / "volume.zarr")
        return contents(output)

    return work


def anonymous(folder: Path) -> dict[str, Any]:
    """Arguments of an anonymous client of boto3."""
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=UNSIGNED,
        s3={"addressing_style": "path"},
        max_pool_connections=CONCURRENT,
    )
    endpoint = (folder / "endpoint").read_text()
    return {"endpoint_url": endpoint, "region_name": "us-east-1", "config": config}


def tutorial(folder: Path) -> Work:
    """fetch_data.py of the LSD tutorial: `objects.filter`, then `download_file` for each."""
    import boto3

    arguments = anonymous(folder)

    def work() -> Any:
        output = emptied(folder / "loop")
        bucket = boto3.resource("s3", **arguments).Bucket(BUCKET)
        for item in bucket.objects.filter(Prefix=PREFIX):
            target = output / item.key
            target.parent.mkdir(parents=True, exist_ok=True)
            bucket.download_file(item.key, str(target))
        return contents(output)

    return work


def transfer_manager(folder: Path) -> Work:
    import boto3
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    arguments = anonymous(folder)

    def work() -> Any:
        output = emptied(folder / "manager")
        client = boto3.client("s3", **arguments)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
        config = TransferConfig(max_concurrency=CONCURRENT)
        with create_transfer_manager(client, config) as manager:
            for key in [entry["Key"] for page in pages for entry in page["Contents"]]:
                target = output / key
                target.parent.mkdir(parents=True, exist_ok=True)
                manager.download(BUCKET, key, str(target))
        return contents(output)

    return work


def with_obstore(folder: Path) -> Work:
    import asyncio

    import obstore
    from obstore.store import S3Store

    endpoint = (folder / "endpoint").read_text()

    async def fetch_all(output: Path) -> None:
        options: Any = {"allow_http": True}
        place: Any = {"endpoint": endpoint, "region": "us-east-1", "client_options": options}
        store = S3Store(BUCKET, skip_signature=True, virtual_hosted_style_request=False, **place)
        names = iter([item["path"] for page in obstore.list(store, PREFIX) for item in page])

        async def worker() -> None:
            for name in names:
                answer = await obstore.get_async(store, name)
                target = output / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(await answer.bytes_async())

        await asyncio.gather(*(worker() for _ in range(CONCURRENT)))

    def work() -> Any:
        output = emptied(folder / "obstore")
        asyncio.run(fetch_all(output))
        return contents(output)

    return work


def difference(ours: Any, theirs: Any) -> str:
    different = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    return f"{len(different)} of {len(ours)} objects"


COMPARISON = Comparison(
    file=__file__,
    title="fetch, 200 objects of 64 KiB, 30 ms per request (peers do not verify)",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("the tutorial's loop (boto3 1.44.5)", tutorial, ("boto3==1.44.5",)),
        Contender("boto3's transfer manager 1.44.5", transfer_manager, ("boto3==1.44.5",)),
        Contender("obstore 0.12.1", with_obstore, ("obstore==0.12.1",)),
    ),
    amount=OBJECTS,
    unit="objects/s",
    difference=difference,
    wall=True,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
