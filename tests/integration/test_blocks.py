"""Volumes streamed from a real S3 server: the same bytes, few requests, no mixed versions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import assemble
import mask
import predict
import s3_server
import tiny_training as tiny
import train
from kill import PATIENCE_S, SCRIPTS, finish, kill_when
from prediction_case import Case, make_case, store_bytes
from retrace.errors import DataError, FetchError
from retrace.geometry import VoxelBox
from retrace.remote import objects
from retrace.remote.block_cache import BUCKETS, FOLDER_VARIABLE, GIB_VARIABLE
from retrace.remote.read_record import ChangedError
from retrace.storage.manifest import manifest_path, read_manifest
from retrace.storage.precomputed_writer import write_layer
from retrace.storage.volumes import S3Server, Volume, open_volume
from retrace.storage.zarr_writer import create_volume
from s3_server import Fault, Proxy

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("tiny_threads")]

BUCKET = "volumes"
CHUNKS = 3 * 2 * 2
"""Of the raw (40, 60, 58) in chunks of (16, 32, 32)."""


def upload(folder: Path, endpoint: str, prefix: str) -> None:
    client = s3_server.writer(endpoint)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        key = f"{prefix}/{file.relative_to(folder).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())


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


def address(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}.zarr"


def opened(request: pytest.FixtureRequest, proxy: Proxy) -> Volume:
    return open_volume(address(request), "volumes/raw", server=S3Server(proxy.endpoint))


def cached_files(cache: Path) -> list[Path]:
    return [path for path in cache.glob("[0-9][0-9]/*") if path.is_file()]


def elsewhere(case: Case, request: pytest.FixtureRequest, proxy: Proxy) -> dict[str, Any]:
    raw = {"path": address(request), "array": "volumes/raw", "endpoint_url": proxy.endpoint}
    return {"volume": {"raw": raw, "roi_nm": None}}


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


def test_a_block_that_changed_later_is_not_taken_from_the_cache(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    first = opened(request, proxy)
    before = first.read(first.box)
    change(proxy, request, "0/0/0", "0/1/0")
    again = opened(request, proxy)
    new = again.read(again.box)

    assert not np.array_equal(new[:16, :32, :32], before[:16, :32, :32])
    np.testing.assert_array_equal(new[16:], before[16:])


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


def change(proxy: Proxy, request: pytest.FixtureRequest, chunk: str, source: str) -> None:
    """Replaces a chunk on the server by another one, at least a second later."""
    time.sleep(1.1)  # Last-Modified counts whole seconds
    client, name = s3_server.writer(proxy.upstream), f"{request.node.name}.zarr/volumes/raw"
    body = client.get_object(Bucket=BUCKET, Key=f"{name}/{source}")["Body"].read()
    client.put_object(Bucket=BUCKET, Key=f"{name}/{chunk}", Body=body)
    time.sleep(1.1)


def test_versions_are_not_mixed(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    """A program reads half of a volume, then the other half changes."""
    volume = opened(request, proxy)
    volume.read(volume.box.intersect(volume.box.shift((-16, 0, 0))))
    change(proxy, request, "2/0/0", "0/0/0")
    with pytest.raises(ChangedError, match="changed at .* after the first .* were read at"):
        volume.read(volume.box)
    again = opened(request, proxy)
    values = again.read(again.box)
    np.testing.assert_array_equal(values[32:, :32, :32], values[:8, :32, :32])


def test_a_prediction_of_a_changed_volume_starts_again(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    arguments = case.arguments(**elsewhere(case, request, proxy))
    proxy.faults["raw/2/1/1"] = Fault("403")
    with pytest.raises(FetchError, match="access denied"):
        predict.main(arguments)
    proxy.faults.clear()
    change(proxy, request, "0/0/0", "0/1/1")
    with pytest.raises(ChangedError, match="Run the same command again"):
        predict.main(arguments)
    predict.main(arguments)
    before = store_bytes(case.output)
    copy = case.raw / "volumes" / "raw"
    (copy / "0/0/0").write_bytes((copy / "0/1/1").read_bytes())
    predict.main(case.arguments())
    assert store_bytes(case.output) == before


def test_shards_that_read_different_versions_are_not_assembled(
    case: Case, cache: Path, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    changes = {**elsewhere(case, request, proxy), "tile": [2, 64, 64]}
    shares = [case.folder / f"prediction_{n}-of-2.zarr" for n in (1, 2)]

    def make(index: int) -> None:
        options = ["--output", str(shares[index]), "--shard", f"{index + 1}-of-2"]
        predict.main([*case.arguments(**changes), *options])

    make(0)
    change(proxy, request, "2/1/1", "2/0/0")
    before = len(proxy.requests)
    for file in cached_files(cache):
        file.unlink()
    make(1)
    assert len(proxy.requests) > before
    command = ["--shards", *map(str, shares), "--output", str(case.output)]
    with pytest.raises(DataError, match=r"changed after \S*prediction_1-of-2.zarr had read it"):
        assemble.main(command)
    make(0)
    assemble.main(command)
    assert read_manifest(case.output)["read"]


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


def streamed_training(tmp_path: Path, proxy: Proxy, name: str, iterations: int) -> dict[str, Any]:
    """Trains on volumes on the server for so many iterations; training.json."""
    settings = tiny.settings(Path("unused"), iterations)
    for array, source in settings["dataset"]["volumes"]["cube"].items():
        source |= {"path": f"s3://{BUCKET}/{name}.zarr", "endpoint_url": proxy.endpoint}
        assert source["array"] == array
    train.main(tiny.arguments(tmp_path, settings))
    content: dict[str, Any] = json.loads((tmp_path / "training.json").read_text())
    return content


def test_a_training_does_not_resume_on_a_volume_that_changed(
    endpoint: str, cache: Path, proxy: Proxy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    upload(tiny.write_volume(tmp_path / "own.zarr"), endpoint, f"{name}.zarr")
    before = streamed_training(tmp_path, proxy, name, 4)
    (read,) = before["origin"]["read"].values()
    assert read["blocks"] == 2
    time.sleep(1.1)  # Last-Modified counts whole seconds
    corrected = tiny.write_volume(tmp_path / "corrected.zarr", seed=5)
    upload(corrected / "labels", endpoint, f"{name}.zarr/labels")
    time.sleep(1.1)

    with pytest.raises(ChangedError, match="Run the same command again"):
        streamed_training(tmp_path, proxy, name, 6)
    after = streamed_training(tmp_path, proxy, name, 6)
    assert after["iterations_this_run"] == 6
    assert after["origin"]["read"] != before["origin"]["read"]
