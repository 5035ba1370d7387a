"""Volumes streamed from a real S3 server: the same bytes, few requests."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import mask
import predict
from kill import PATIENCE_S, SCRIPTS, finish, kill_when
from prediction_case import Case, store_bytes
from retrace.errors import DataError, FetchError
from retrace.geometry import VoxelBox
from retrace.remote import objects
from retrace.remote.block_cache import BUCKETS, FOLDER_VARIABLE, GIB_VARIABLE
from retrace.storage.manifest import manifest_path, read_manifest
from retrace.storage.precomputed_writer import write_layer
from retrace.storage.volumes import S3Server, open_volume
from retrace.storage.zarr_writer import create_volume
from s3_server import Fault, Proxy
from streamed_case import BUCKET, CHUNKS, address, cached_files, elsewhere, opened, upload

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("tiny_threads")]


def test_the_prediction_is_that_of_a_copy(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    predict.main(case.arguments())
    expected = store_bytes(case.output)
    changes = elsewhere(case, request, proxy)
    predict.main(case.arguments(**changes))

    assert store_bytes(case.output) == expected
    (read,) = read_manifest(case.output)["read"].items()
    assert read[0] == f"{proxy.endpoint}/{BUCKET}/{request.node.name}.zarr"
    assert (read[1]["blocks"], read[1]["absent_blocks"]) == (CHUNKS, 0)
    meta = (case.raw / "volumes/raw/.zarray").read_bytes()
    document = read[1]["documents"]["volumes/raw/.zarray"]
    assert document["sha256"] == hashlib.sha256(meta).hexdigest()
    assert document["etag"] == hashlib.md5(meta).hexdigest()
    assert read_manifest(case.output)["inputs"][read[0]] == read[1]["sha256"][:16]
    chunks = [path for path in proxy.transferred if path[-1].isdigit()]
    assert len(chunks) == len(set(chunks)) == CHUNKS


def test_a_cache_hit_transfers_metadata_only(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    first = opened(request, proxy)
    expected = first.read(first.box)
    proxy.requests.clear()
    proxy.transferred.clear()
    again = opened(request, proxy)

    np.testing.assert_array_equal(again.read(again.box), expected)
    assert not [path for path in proxy.transferred if path[-1].isdigit()]
    compared = [path for path in proxy.requests if path[-1].isdigit()]
    assert len(compared) == len(set(compared)) == CHUNKS
    assert 0 < len(proxy.transferred) <= 4
    assert again.reader and first.reader
    assert again.reader.record.summary()["sha256"] == first.reader.record.summary()["sha256"]


def test_only_what_is_needed_is_read(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    volume = opened(request, proxy)
    part = VoxelBox((16, 32, 0), (16, 20, 32)).shift(volume.box.offset)
    volume.read(part)
    assert [path[-5:] for path in proxy.requests if path[-1].isdigit()] == ["1/1/0"]


def test_many_objects_are_requested_concurrently(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    volume = opened(request, proxy)
    proxy.together, proxy.peak = 6, 0
    volume.read(volume.box)
    assert proxy.peak >= 6


def test_the_cache_keeps_to_its_size(
    case: Case,
    cache: Path,
    proxy: Proxy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GIB_VARIABLE, str(BUCKETS * 20_000 / 2**30))  # one chunk a folder
    volume = opened(request, proxy)
    expected = volume.read(volume.box)
    kept = cached_files(cache)

    assert 0 < len(kept) <= CHUNKS
    assert max(sum(f.stat().st_size for f in d.iterdir()) for d in cache.iterdir()) <= 20_000
    again = opened(request, proxy)
    np.testing.assert_array_equal(again.read(again.box), expected)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "facts"])
def test_a_damaged_block_of_the_cache_is_fetched_again(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest, damage: str
) -> None:
    volume = opened(request, proxy)
    expected = volume.read(volume.box)
    (file, *_), count = sorted(cached_files(cache)), len(cached_files(cache))
    data = file.read_bytes()
    new = {
        "flip": data[:-1] + bytes([data[-1] ^ 4]),
        "cut": data[: len(data) // 2],
        "empty": b"",
        "facts": data.replace(b'"asked": 1', b'"asked": 2'),
    }[damage]
    assert new != data
    file.write_bytes(new)
    proxy.transferred.clear()
    again = opened(request, proxy)

    np.testing.assert_array_equal(again.read(again.box), expected)
    assert len([path for path in proxy.transferred if path[-1].isdigit()]) == 1
    assert len(cached_files(cache)) == count
    assert file.read_bytes()[-100:] == data[-100:]


READ = """
import hashlib, sys
from retrace.storage.volumes import S3Server, open_volume
for _ in range(5):
    volume = open_volume(sys.argv[1], "volumes/raw", server=S3Server(sys.argv[2]))
    print(hashlib.sha256(volume.read(volume.box).tobytes()).hexdigest())
"""


def test_two_processes_share_a_cache_that_is_too_small(
    case: Case,
    cache: Path,
    proxy: Proxy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GIB_VARIABLE, str(BUCKETS * 20_000 / 2**30))
    command = [sys.executable, "-c", READ, address(request), proxy.endpoint]
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for _ in range(2)]
    shown = [line for p in both for line in p.communicate(timeout=PATIENCE_S)[0].decode().split()]

    truth = open_volume(case.raw, "volumes/raw")
    assert shown == [hashlib.sha256(truth.read(truth.box).tobytes()).hexdigest()] * 10
    assert [p.returncode for p in both] == [0, 0]
    assert not [path for path in cached_files(cache) if path.name.startswith(".")]


def test_an_interrupted_run_resumes_to_the_same_bytes(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    predict.main(case.arguments())
    expected = store_bytes(case.output)
    manifest_path(case.output).unlink()
    arguments = case.arguments(**elsewhere(case, request, proxy))

    def a_tile_is_done() -> bool:
        journals = list((case.folder / "work").glob("*/done.jsonl"))
        return any(journal.stat().st_size for journal in journals)

    assert kill_when("predict.py", arguments, a_tile_is_done)
    assert len(cached_files(cache)) > 0
    finish("predict.py", arguments)
    assert store_bytes(case.output) == expected
    (read,) = read_manifest(case.output)["read"].values()
    assert read["blocks"] == CHUNKS, "blocks read by the interrupted run count too"


@pytest.mark.parametrize("kind", ["flip", "short", "cut", "503"])
def test_a_temporary_failure_is_retried(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest, kind: str
) -> None:
    proxy.faults["raw/1/1/1"] = Fault(kind, times=2)
    volume, truth = opened(request, proxy), open_volume(case.raw, "volumes/raw")
    np.testing.assert_array_equal(volume.read(volume.box), truth.read(truth.box))
    assert proxy.count("raw/1/1/1") == 3


@pytest.mark.parametrize(
    ("kind", "message"),
    [("503", "'volumes/raw/1/1/1' .* 2 attempts.*503 SlowDown"), ("403", "access denied")],
)
def test_a_permanent_failure_is_reported(
    case: Case,
    proxy: Proxy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    message: str,
) -> None:
    monkeypatch.setattr(objects, "RETRIES", 2)
    proxy.faults["raw/1/1/1"] = Fault(kind)
    volume = opened(request, proxy)
    with pytest.raises(FetchError, match=message):
        volume.read(volume.box)


def test_missing_inputs_are_named(case: Case, proxy: Proxy, request: pytest.FixtureRequest) -> None:
    server = S3Server(proxy.endpoint)
    with pytest.raises(DataError, match="has no array 'volumes/row'"):
        open_volume(address(request), "volumes/row", server=server)
    with pytest.raises(FetchError, match="no bucket 'nobody'"):
        open_volume("s3://nobody/a.zarr", "raw", server=server)
    with pytest.raises(DataError, match="cannot be opened as a precomputed layer"):
        open_volume(f"s3://{BUCKET}/nothing", server=server)
    with pytest.raises(DataError, match="contradict each other"):
        open_volume(address(request), "volumes/raw", (8, 8, 8), server=server)


def test_parts_of_a_shard_of_format_3(
    endpoint: str, cache: Path, proxy: Proxy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = np.random.default_rng(5).integers(0, 256, (32, 64, 64), np.uint8)
    zarr.create_array(
        tmp_path / "v3.zarr",
        data=data,
        chunks=(8, 16, 16),
        shards=(32, 32, 32),
        attributes={"resolution": [20, 9, 9]},
    )
    upload(tmp_path / "v3.zarr", endpoint, f"{request.node.name}.zarr")
    volume = open_volume(address(request), server=S3Server(proxy.endpoint))
    part = VoxelBox((3, 20, 10), (6, 30, 30))

    np.testing.assert_array_equal(volume.read(part), data[part.slices()])
    np.testing.assert_array_equal(volume.read(volume.box), data)
    proxy.transferred.clear()
    again = open_volume(address(request), server=S3Server(proxy.endpoint))
    np.testing.assert_array_equal(again.read(part), data[part.slices()])
    assert not [path for path in proxy.transferred if path.endswith("0/0")]


def test_layers_are_read_from_buckets(
    endpoint: str, cache: Path, proxy: Proxy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = np.random.default_rng(5).integers(0, 256, (40, 70, 66), np.uint8)
    write_layer(tmp_path / "layer", data, (20, 9, 9), (2, 30, 400))
    upload(tmp_path / "layer", endpoint, request.node.name)
    place = f"s3://{BUCKET}/{request.node.name}"
    first = open_volume(place, server=S3Server(proxy.endpoint))
    np.testing.assert_array_equal(first.read(first.box), data)
    proxy.transferred.clear()
    again = open_volume(f"precomputed://{place}", server=S3Server(proxy.endpoint))

    np.testing.assert_array_equal(again.read(again.box), data)
    assert [path.rpartition("/")[2] for path in proxy.transferred] == ["info"]
    # The same objects, served by a web server.
    web = open_volume(f"{proxy.endpoint}/{BUCKET}/{request.node.name}")
    np.testing.assert_array_equal(web.read(web.box), data)


def test_a_full_disk_disables_the_cache_and_the_run_continues(
    case: Case,
    proxy: Proxy,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    monkeypatch.setenv(GIB_VARIABLE, "1")
    volume, truth = opened(request, proxy), open_volume(case.raw, "volumes/raw")
    np.testing.assert_array_equal(volume.read(volume.box), truth.read(truth.box))
    assert capsys.readouterr().out.count("cannot be written") == 1


def test_absent_chunks_are_noted_where_the_source_allows_them(
    endpoint: str, cache: Path, proxy: Proxy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    labels = np.arange(8 * 8 * 8, dtype=np.uint64).reshape(8, 8, 8) + 2**40
    place: dict[str, Any] = {"voxel_size_nm": (20, 9, 9), "offset_nm": (0, 0, 0)}
    store = tmp_path / "labels.zarr"
    created = create_volume(
        store, "ids", shape=labels.shape, chunks=(4, 4, 4), dtype=np.uint64, **place
    )
    created[...] = labels
    (store / "ids/0/1/0").unlink()
    upload(store, endpoint, f"{request.node.name}.zarr")
    source = {"path": address(request), "array": "ids", "endpoint_url": proxy.endpoint}
    settings = {"background_ids": [], "labels": source}
    arguments = ["--output", str(tmp_path / "mask.zarr")]
    with pytest.raises(DataError, match="chunk ids/0/1/0 is missing; .*`missing_chunks: fill`"):
        mask.main(["--settings", json.dumps(settings), *arguments])
    source["missing_chunks"] = "fill"
    mask.main(["--settings", json.dumps(settings), *arguments])

    (read,) = read_manifest(tmp_path / "mask.zarr")["read"].values()
    assert (read["blocks"], read["absent_blocks"]) == (8, 1)
    volume = open_volume(
        address(request), "ids", server=S3Server(proxy.endpoint), missing_chunks="fill"
    )
    labels[:4, 4:, :4] = 0
    np.testing.assert_array_equal(volume.read(volume.box), labels)
