"""Fetching from a real S3 server over HTTP: errors of every kind, interruptions at random times."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fetch
import phantom
import s3_server
from kill import PATIENCE_S
from retrace.errors import FetchError
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.storage.volumes import open_volume
from s3_server import Fault

pytestmark = pytest.mark.s3

BUCKET = "open-neurodata"
PREFIX = "funke/phantom/training"
ARRAYS = ["volumes/raw", "volumes/labels/neuron_ids"]
CHUNK = "v.zarr/volumes/raw/1.1.1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A moto server with two public phantom volumes: v.zarr, and v.zarr2 with a similar name."""
    with s3_server.serving() as address:
        s3_server.upload_small_volumes(address, "v", "train_0")
        client = s3_server.writer(address)
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/v.zarr2/decoy", Body=b"decoy")
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/v.zarr/", Body=b"")
        yield address


@pytest.fixture(scope="module")
def truth(endpoint: str) -> dict[str, bytes]:
    """The objects of v.zarr as the server holds them."""
    client = s3_server.writer(endpoint)
    prefix = f"{PREFIX}/v.zarr/"
    keys = [
        entry["Key"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        for entry in page["Contents"]
        if entry["Key"] != prefix
    ]
    return {
        key.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        for key in keys
    }


def settings_for(endpoint: str, **changes: Any) -> str:
    values = {"bucket": BUCKET, "prefix": f"{PREFIX}/v.zarr", "endpoint_url": endpoint}
    return json.dumps({**values, "arrays": ARRAYS, "threads": 8, "retries": 2, **changes})


def run_fetch(output: Path, endpoint: str, **changes: Any) -> None:
    fetch.main(["--settings", settings_for(endpoint, **changes), "--output", str(output)])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_volume_arrives_whole_and_nothing_else(
    endpoint: str, truth: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, endpoint)
    assert contents(output) == truth
    manifest = check_manifest(output, digests=True)
    assert manifest["verified"] == {"md5": len(truth)}
    assert open_volume(output, "volumes/labels/neuron_ids").offset_nm == (80, 72, 72)
    shown = capsys.readouterr().out
    assert f"[fetch] {len(truth)} objects, " in shown


def test_a_listing_of_several_pages(endpoint: str, truth: dict[str, bytes], tmp_path: Path) -> None:
    with s3_server.spoiling(endpoint) as proxy:
        proxy.page_size = 7
        run_fetch(tmp_path / "v.zarr", proxy.endpoint)
        assert proxy.count(BUCKET) == -(-(len(truth) + 1) // 7)
    assert contents(tmp_path / "v.zarr") == truth


def test_unusual_keys_keep_their_names(endpoint: str, tmp_path: Path) -> None:
    objects = {f"s/{name}": name.encode() for name in ("a b", "c+d", "e%20f", "ü/~x", "q?=&#")}
    s3_server.put_objects(endpoint, "strange", objects)
    run_fetch(tmp_path / "s", endpoint, bucket="strange", prefix="s", arrays=[])
    assert {f"s/{name}": body for name, body in contents(tmp_path / "s").items()} == objects


def test_multipart_and_empty_objects_are_verified(endpoint: str, tmp_path: Path) -> None:
    client = s3_server.writer(endpoint)
    phantom.make_public_bucket(client, "parts")
    body = random.Random(1).randbytes(11 << 20)
    upload = client.create_multipart_upload(Bucket="parts", Key="c/big")["UploadId"]
    pieces = [body[: 8 << 20], body[8 << 20 :]]
    target = {"Bucket": "parts", "Key": "c/big", "UploadId": upload}
    tags = [
        client.upload_part(**target, PartNumber=n, Body=piece)["ETag"]
        for n, piece in enumerate(pieces, start=1)
    ]
    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, start=1)]
    client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    client.put_object(Bucket="parts", Key="c/empty", Body=b"")
    run_fetch(tmp_path / "c", endpoint, bucket="parts", prefix="c", arrays=[])
    assert contents(tmp_path / "c") == {"big": body, "empty": b""}
    manifest = json.loads((tmp_path / "c.manifest.json").read_text())
    assert manifest["verified"] == {"parts": 1, "md5": 1}


def test_credentials_open_a_private_bucket(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.put_objects(endpoint, "private", {"p/x": b"secret"}, public=False)
    with pytest.raises(FetchError, match="access denied .*'private'.*unsigned: false"):
        run_fetch(tmp_path / "p", endpoint, bucket="private", prefix="p", arrays=[])
    assert not (tmp_path / "p").exists()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "phantom")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "phantom")
    run_fetch(tmp_path / "p", endpoint, bucket="private", prefix="p", arrays=[], unsigned=False)
    assert contents(tmp_path / "p") == {"x": b"secret"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bucket": "open-neurodat"}, "no bucket 'open-neurodat' at http"),
        ({"prefix": f"{PREFIX}/train_O.zarr"}, "did you mean 'train_0.zarr'"),
        ({"prefix": f"{PREFIX}/v.zar"}, "has no 'v.zar' under"),
        ({"prefix": "nobody/here"}, "has nothing under 'nobody'"),
        ({"arrays": ["volumes/labels/mask"]}, "has no array 'volumes/labels/mask'"),
    ],
)
def test_missing_objects_are_named_and_existing_ones_kept(
    endpoint: str,
    truth: dict[str, bytes],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, endpoint)
    with pytest.raises(FetchError, match=message):
        run_fetch(output, endpoint, **changes)
    assert contents(output) == truth
    check_manifest(output)


def test_an_endpoint_that_is_down_is_one_line_on_stderr(tmp_path: Path) -> None:
    done = run_script(tmp_path / "v.zarr", "http://127.0.0.1:9").communicate(timeout=PATIENCE_S)
    assert done[1].startswith("error: http://127.0.0.1:9 does not answer")
    assert len(done[1].strip().splitlines()) == 1
    assert not (tmp_path / "v.zarr").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flip", "raw/1.1.1' .*corrupted: md5"),
        ("short", "raw/1.1.1' .*truncated"),
        ("cut", "raw/1.1.1' .*truncated"),
        ("503", "raw/1.1.1' .*503 SlowDown"),
        ("403", "access denied .*raw/1.1.1"),
        ("404", "raw/1.1.1' was listed but is gone"),
    ],
)
def test_bad_objects_are_named_and_a_rerun_resumes(
    endpoint: str, truth: dict[str, bytes], tmp_path: Path, kind: str, message: str
) -> None:
    output = tmp_path / "v.zarr"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.faults[CHUNK] = Fault(kind)
        with pytest.raises(FetchError, match=message):
            run_fetch(output, proxy.endpoint, threads=1)
        assert not output.exists()
        assert not manifest_path(output).exists()
        kept = {n for n in contents(tmp_path / "v.zarr.partial") if not n.endswith(".part")}
        assert kept
        assert "volumes/raw/1.1.1" not in kept
        proxy.faults.clear()
        proxy.requests.clear()
        run_fetch(output, proxy.endpoint)
        assert contents(output) == truth
        assert len(proxy.requests) == len(truth) - len(kept) + 1


@pytest.mark.parametrize("kind", ["flip", "short", "cut", "503"])
def test_a_temporary_failure_is_retried(
    endpoint: str, truth: dict[str, bytes], tmp_path: Path, kind: str
) -> None:
    with s3_server.spoiling(endpoint) as proxy:
        proxy.faults[CHUNK] = Fault(kind, times=2)
        run_fetch(tmp_path / "v.zarr", proxy.endpoint, retries=4)
        assert proxy.count(CHUNK) == 3
    assert contents(tmp_path / "v.zarr") == truth


def run_script(output: Path, endpoint: str, **changes: Any) -> subprocess.Popen[str]:
    command = [sys.executable, fetch.__file__, "--settings", settings_for(endpoint, **changes)]
    return subprocess.Popen(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_interruptions_at_random_times_keep_the_same_bytes(
    endpoint: str, truth: dict[str, bytes], tmp_path: Path, end: signal.Signals
) -> None:
    output, moments = tmp_path / "v.zarr", random.Random(int(end))
    with s3_server.spoiling(endpoint) as proxy:
        proxy.delay_s = 0.02
        for _ in range(3):
            # Enough answers to keep some objects, too few to complete the fetch.
            first = moments.randint(6, len(truth) // 5)
            proxy.let(first + 3)
            process = run_script(output, proxy.endpoint, threads=2)
            while proxy.answered < first and process.poll() is None:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.1))
            process.send_signal(end)
            proxy.let(None)
            process.communicate(timeout=PATIENCE_S)
            assert process.returncode != 0
            assert not output.exists()
            proxy.drain()
        proxy.delay_s, before = 0.0, len(proxy.requests)
        process = run_script(output, proxy.endpoint)
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert len(proxy.requests) - before < len(truth), (
            "nothing was kept from the interrupted runs"
        )
    assert contents(output) == truth
    check_manifest(output, digests=True)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".v.chunks.gz", ".v.zarr.lock", "v.manifest.json", "v.zarr"]


def test_memory_does_not_grow_with_the_objects(endpoint: str, tmp_path: Path) -> None:
    client = s3_server.writer(endpoint)
    phantom.make_public_bucket(client, "heavy")
    for index in range(6):
        client.put_object(Bucket="heavy", Key=f"h/{index}", Body=bytes([index]) * (40 << 20))
    process = run_script(tmp_path / "h", endpoint, bucket="heavy", prefix="h", arrays=[])
    peak_kb = 0
    while process.poll() is None:
        # ru_maxrss would count this process too: it survives exec.
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kb = max([peak_kb, *(int(n) for n in re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.02)
    assert process.returncode == 0, process.communicate()[1]
    manifest = json.loads((tmp_path / "h.manifest.json").read_text())
    assert manifest["bytes"] == 6 * 40 << 20
    assert 20_000 < peak_kb < 200_000
