"""One large object in parts from a real S3 server: interruption, damage, a changed object."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fetch_object
import s3_server
from kill import PATIENCE_S
from retrace.errors import FetchError
from retrace.output_lock import lock_file
from s3_server import Fault

pytestmark = pytest.mark.s3

KEY = "funke/singularity/lsd:v0.8.img"
BODY = random.Random(8).randbytes((11 << 20) + 5)
SHA256 = hashlib.sha256(BODY).hexdigest()
PART = 1 << 20
PARTS = 12


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with a single upload, and multipart ones of usual and unusual part size."""
    with s3_server.serving() as address:
        s3_server.put_objects(
            address, "open-neurodata", {KEY: BODY, "funke/singularity/other.img": b"x"}
        )
        upload_in_parts(address, "open-neurodata", "usual", 8 << 20)
        upload_in_parts(address, "open-neurodata", "strange", (5 << 20) + 7)
        yield address


def upload_in_parts(endpoint: str, bucket: str, folder: str, part_bytes: int) -> None:
    client = s3_server.writer(endpoint)
    target: Any = {"Bucket": bucket, "Key": f"{folder}/image"}
    target["UploadId"] = client.create_multipart_upload(**target)["UploadId"]
    pieces = [BODY[begin : begin + part_bytes] for begin in range(0, len(BODY), part_bytes)]
    tags = [
        {"PartNumber": n, "ETag": client.upload_part(**target, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in enumerate(pieces, start=1)
    ]
    client.complete_multipart_upload(**target, MultipartUpload={"Parts": tags})


def settings_for(endpoint: str, **changes: Any) -> dict[str, Any]:
    values = {"bucket": "open-neurodata", "key": KEY, "endpoint_url": endpoint, "part_bytes": PART}
    return {**values, "threads": 4, "retries": 3, **changes}


def run_fetch(output: Path, endpoint: str, **changes: Any) -> dict[str, Any]:
    """Fetches and returns the manifest."""
    settings = json.dumps(settings_for(endpoint, **changes))
    fetch_object.main(["--settings", settings, "--output", str(output)])
    manifest: dict[str, Any] = json.loads(output.with_suffix(".manifest.json").read_text())
    return manifest


def check_whole(output: Path, manifest: dict[str, Any], verified: str = "md5") -> None:
    assert output.read_bytes() == BODY
    assert (manifest["sha256"], manifest["bytes"]) == (SHA256, len(BODY))
    assert manifest["verified"] == verified
    left = sorted(path.name for path in output.parent.iterdir() if path != lock_file(output))
    assert left == ["lsd_v0.8.img", "lsd_v0.8.img.sha256", "lsd_v0.8.manifest.json"]


def test_it_is_downloaded_in_parts_under_another_name(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "lsd_v0.8.img"
    with s3_server.spoiling(endpoint) as proxy:
        manifest = run_fetch(output, proxy.endpoint)
        check_whole(output, manifest)
        assert proxy.count(KEY.replace(":", "%3A")) == PARTS
        assert manifest["source"] == f"s3://open-neurodata/{KEY} at {proxy.endpoint}"
    subprocess.run(["sha256sum", "-c", "lsd_v0.8.img.sha256"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(("folder", "verified"), [("usual", "parts"), ("strange", "twice")])
def test_uploads_in_parts_are_verified(
    endpoint: str, tmp_path: Path, folder: str, verified: str
) -> None:
    output = tmp_path / "lsd_v0.8.img"
    check_whole(output, run_fetch(output, endpoint, key=f"{folder}/image"), verified)


@pytest.mark.parametrize("kind", ["short", "cut", "503"])
def test_a_part_that_fails_is_requested_again(endpoint: str, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "lsd_v0.8.img"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.faults[".img"] = Fault(kind, times=2)
        check_whole(output, run_fetch(output, proxy.endpoint))


@pytest.mark.parametrize(("key", "verified"), [(KEY, "md5"), ("usual/image", "parts")])
def test_a_corrupted_part_is_detected_and_fetched_again(
    endpoint: str, tmp_path: Path, key: str, verified: str
) -> None:
    output = tmp_path / "lsd_v0.8.img"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.faults[key.rpartition("/")[2].replace(":", "%3A")] = Fault("flip", times=1)
        check_whole(output, run_fetch(output, proxy.endpoint, key=key), verified)


def test_an_object_that_never_fits_is_refused(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "lsd_v0.8.img"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.faults[".img"] = Fault("flip")
        with pytest.raises(FetchError, match="downloaded 4 times, never with the bytes of"):
            run_fetch(output, proxy.endpoint)
    assert not output.exists()
    check_whole(output, run_fetch(output, endpoint))


def test_an_object_that_changed_since_the_first_fetch_is_refused(
    endpoint: str, tmp_path: Path
) -> None:
    output = tmp_path / "lsd_v0.8.img"
    run_fetch(output, endpoint)
    with pytest.raises(FetchError, match=r"has sha256 .*img\.sha256 says"):
        run_fetch(output, endpoint, key="funke/singularity/other.img")
    assert output.read_bytes() == BODY
    with pytest.raises(FetchError, match=r"containers/images\.yaml says 00"):
        run_fetch(tmp_path / "told.img", endpoint, sha256="00")
    assert run_fetch(output, endpoint, sha256=SHA256)["sha256"] == SHA256


def test_an_absent_object_is_named_with_its_neighbour(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"did you mean 'lsd:v0\.8\.img'"):
        run_fetch(tmp_path / "x.img", endpoint, key="funke/singularity/lsd:v0.9.img")


def test_a_mirror_serves_streamed_volumes_too(tmp_path: Path) -> None:
    source = tmp_path / "mirror" / KEY
    source.parent.mkdir(parents=True)
    source.write_bytes(BODY)
    output = tmp_path / "out" / "lsd_v0.8.img"
    check_whole(output, run_fetch(output, "", endpoint_url=None, mirror=str(tmp_path / "mirror")))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_download_resumes(
    endpoint: str, tmp_path: Path, end: signal.Signals
) -> None:
    output = tmp_path / "lsd_v0.8.img"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.let(PARTS - 3)  # so that it cannot finish before the signal
        settings = json.dumps(settings_for(proxy.endpoint, threads=1))
        command = [sys.executable, fetch_object.__file__, "--settings", settings]
        process = subprocess.Popen(
            [*command, "--output", str(output)],
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
        )
        journal = tmp_path / "lsd_v0.8.img.parts"
        while process.poll() is None and not (
            journal.is_file() and journal.read_text().count('"first"') >= 3
        ):
            time.sleep(0.005)
        proxy.delay_s = 0.1
        process.send_signal(end)
        proxy.let(None)
        assert process.wait(PATIENCE_S) != 0
        assert not output.exists()
        proxy.drain()
        kept = journal.read_text().count('"first"')
        assert 3 <= kept < PARTS
        # Parts on disk count only if their checksums match.
        with (tmp_path / "lsd_v0.8.img.partial").open("r+b") as file:
            file.write(b"damaged")
        proxy.delay_s = 0.0
        proxy.requests.clear()
        manifest = run_fetch(output, proxy.endpoint)
        check_whole(output, manifest)
        assert proxy.count(KEY.replace(":", "%3A")) == PARTS - kept + 1
