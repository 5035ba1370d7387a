"""Streamed volumes that change while they are read, or between two runs: no mixed versions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import assemble
import predict
import tiny_training as tiny
import train
from prediction_case import Case, store_bytes
from retrace.errors import DataError, FetchError
from retrace.remote.read_record import ChangedError
from retrace.storage.manifest import read_manifest
from s3_server import Fault, Proxy
from streamed_case import BUCKET, cached_files, change, elsewhere, opened, upload

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("tiny_threads")]


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
