"""Shards of a volume: any number of jobs gives the same result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import evaluate
import predict
import segment
import sharded
import verify
from prediction_case import Case, make_case
from retrace.errors import ConfigError, DataError
from retrace.segmentation.grid import FragmentIds
from retrace.segmentation.inputs import SegmentationInputs
from retrace.segmentation.lut import components
from retrace.storage.chunk_index import chunk_files
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.storage.shards import parse_shard, shard_names
from retrace.storage.volumes import open_group, open_volume
from retrace.storage.zarr_writer import create_volume
from unit.test_segment import OFFSET_NM, VOXEL_SIZE_NM, fragments_arguments, make_prediction


@given(st.integers(0, 500), st.integers(1, 60))
def test_every_block_is_in_one_shard(blocks: int, count: int) -> None:
    shards = [parse_shard(name).of(range(blocks)) for name in shard_names(count)]
    assert [block for shard in shards for block in shard] == list(range(blocks))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["", "0-of-8", "9-of-8", "3/8", "3-of-", "-1-of-2"])
def test_a_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="INDEX-of-COUNT"):
        parse_shard(text)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=12))
def test_places_and_ids_are_each_others_inverse(counts: list[int]) -> None:
    ids = FragmentIds(7, np.array(counts))
    every = ids.ids()
    assert len(np.unique(every)) == sum(counts) == ids.total
    np.testing.assert_array_equal(ids.rows(every), np.arange(ids.total))
    missing = np.setdiff1d(np.arange(1, 7 * len(counts) + 9, dtype=np.uint64), every)
    for wrong in missing:
        with pytest.raises(DataError, match="no fragment"):
            ids.rows(np.array([wrong]))


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39))))
def test_components_are_those_of_a_library(total: int, pairs: list[tuple[int, int]]) -> None:
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2) % total
    smallest = components(total, [edges[:3], edges[3:]])
    ones = np.ones(len(edges))
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(total, total))
    _, expected = connected_components(graph, directed=False)
    for part in range(expected.max() + 1):
        members = np.flatnonzero(expected == part)
        assert set(smallest[members]) == {members.min()}


def _whole(folder: Path, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """The result of a single job on the same prediction."""
    folder.mkdir()
    make_prediction(folder)
    segment.main(fragments_arguments(folder, **settings))
    (folder / "threshold.json").write_text(json.dumps({"threshold": sharded.THRESHOLD}))
    places = {"fragments": folder / "fragments.zarr", "output": folder / "segmentation.zarr"}
    options = sharded.options(**places, **{"threshold-file": folder / "threshold.json"})
    segment.main(["apply", *options])
    return sharded.arrays(folder / "fragments.zarr", folder / "segmentation.zarr")


@pytest.mark.parametrize(("count", "zarr_format"), [(2, 2), (8, 2), (20, 2), (3, 3), (20, 3)])
def test_any_number_of_shards_gives_the_same_ids(
    tmp_path: Path, count: int, zarr_format: int
) -> None:
    settings = sharded.SETTINGS | {"zarr_format": zarr_format}
    expected = _whole(tmp_path / "whole", settings)
    make_prediction(tmp_path)
    sharded.make_fragments(tmp_path, count, settings)
    graph = sharded.make_graph(tmp_path, count, settings)
    segments = sharded.make_segments(tmp_path, count)
    arrays = sharded.arrays(graph, segments)
    assert set(arrays) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)
    assert 1 < len(np.unique(arrays["segments"])) < len(np.unique(arrays["fragments"]))
    for store in (graph, segments):
        check_manifest(store, digests=True)
        assert all(a.metadata.zarr_format == zarr_format for a in open_group(store).array_values())


@pytest.mark.parametrize(("zarr_format", "files"), [(2, 8), (3, 8)])
def test_files_are_links_not_copies(tmp_path: Path, zarr_format: int, files: int) -> None:
    """A block of 8 x 20 x 22 voxels is one chunk of format 2, or one shard of format 3."""
    make_prediction(tmp_path)
    together = sharded.make_fragments(tmp_path, 2, sharded.SETTINGS | {"zarr_format": zarr_format})
    stored = chunk_files(together / "fragments")
    assert len(stored) == files
    assert all(file.stat().st_nlink == 2 for file in stored)


def test_shards_of_two_formats_are_not_assembled(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    for zarr_format, folder in ((2, tmp_path / "a"), (3, tmp_path / "b")):
        folder.mkdir()
        make_prediction(folder)
        sharded.make_fragments(folder, 2, sharded.SETTINGS | {"zarr_format": zarr_format})
    first = sharded.shard_paths(tmp_path / "a", "fragments", 2)[0]
    second = sharded.shard_paths(tmp_path / "b", "fragments", 2)[1]
    with pytest.raises(DataError, match="they are not shards of one array. Delete these stores"):
        sharded.assemble_stores([first, second], tmp_path / "again.zarr")


def test_only_a_damaged_shard_is_recomputed(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    sharded.make_fragments(tmp_path, 4)
    shards = sharded.shard_paths(tmp_path, "fragments", 4)
    chunk = next(path for path in (shards[2] / "fragments").rglob("[0-9]") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    with pytest.raises(DataError, match=r"fragments_3-of-4.*run the same command again"):
        sharded.assemble_stores(shards, tmp_path / "again.zarr")
    assert [manifest_path(shard).is_file() for shard in shards] == [True, True, False, True]
    assert not (tmp_path / "again.zarr").exists()


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    sharded.make_fragments(tmp_path, 4)
    shards = sharded.shard_paths(tmp_path, "fragments", 4)
    with pytest.raises(DataError, match="chunks: a shard is missing"):
        sharded.assemble_stores(shards[:3], tmp_path / "again.zarr")
    with pytest.raises(DataError, match="both have chunk"):
        sharded.assemble_stores([*shards, shards[0]], tmp_path / "again.zarr")


def test_shards_need_a_block_shape(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    with pytest.raises(ConfigError, match="block_shape"):
        segment.main(fragments_arguments(tmp_path, "--shard", "1-of-2"))


def test_a_table_of_another_threshold_is_refused(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    sharded.make_fragments(tmp_path, 1)
    sharded.make_graph(tmp_path, 1)
    sharded.make_segments(tmp_path, 1)
    (tmp_path / "threshold.json").write_text(json.dumps({"threshold": 0.2}))
    places = {"fragments": "fragments.zarr", "threshold-file": "threshold.json"} | {
        "lut": "shards/lut.zarr",
        "output": "other.zarr",
    }
    full = {name: tmp_path / place for name, place in places.items()}
    with pytest.raises(ConfigError, match="not of these fragments and this threshold"):
        segment.main(["apply", *sharded.options(**full)])


def _tissue(folder: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Tissue in the low half of x, in voxels twice as long in z."""
    mask = np.ones((-(-shape[0] // 2), *shape[1:]), dtype=np.uint8)
    mask[:, :, shape[2] // 2 :] = 0
    size = (VOXEL_SIZE_NM[0] * 2, *VOXEL_SIZE_NM[1:])
    place: dict[str, Any] = {"voxel_size_nm": size, "offset_nm": OFFSET_NM}
    store = folder / "tissue.zarr"
    array = create_volume(
        store, "mask", shape=mask.shape, chunks=mask.shape, dtype=np.uint8, **place
    )
    array[...] = mask
    return {"path": str(store), "array": "mask"}


def test_blocks_without_tissue_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_prediction(tmp_path)
    settings = sharded.SETTINGS | {"tissue_mask": _tissue(tmp_path, (16, 40, 44))}
    looked_at = []
    original = SegmentationInputs.read

    def read(inputs: Any, box: Any) -> Any:
        looked_at.append(box)
        return original(inputs, box)

    monkeypatch.setattr(SegmentationInputs, "read", read)
    sharded.make_fragments(tmp_path, 2, settings)
    sharded.make_graph(tmp_path, 2, settings)
    # 2 x 2 x 2 blocks, of which the 4 of low x have tissue: fragments, then edges.
    assert len(looked_at) == 8
    arrays = sharded.arrays(tmp_path / "fragments.zarr")
    assert not arrays["fragments"][..., 22:].any()
    assert arrays["fragments"][..., :22].all()


def _predict(case: Case, output: Path, *more: str, **settings: Any) -> Path:
    arguments = case.arguments(**settings)
    arguments[arguments.index("--output") + 1] = str(output)
    predict.main([*arguments, *more])
    return output


@pytest.fixture(scope="module")
def large_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An output of 2 x 3 x 1 chunks."""
    return make_case(tmp_path_factory.mktemp("large"), (24 + 70, 40 + 136, 40 + 20))


@pytest.mark.usefixtures("tiny_threads")
@pytest.mark.parametrize(("count", "zarr_format"), [(1, 2), (3, 2), (8, 2), (1, 3), (3, 3), (8, 3)])
def test_a_prediction_in_shards_equals_the_unsharded_one(
    large_case: Case, tmp_path: Path, count: int, zarr_format: int
) -> None:
    tile = {"tile": [64, 64, 64], "zarr_format": zarr_format}
    whole = sharded.arrays(_predict(large_case, tmp_path / "whole.zarr", **tile))
    shards = sharded.shard_paths(tmp_path, "prediction", count)
    for name, store in zip(shard_names(count), shards, strict=True):
        _predict(large_case, store, "--shard", name, **tile)
    sharded.assemble_stores(shards, tmp_path / "prediction.zarr")
    arrays = sharded.arrays(tmp_path / "prediction.zarr")
    assert set(arrays) == {"affs", "lsds"}
    for name, values in whole.items():
        np.testing.assert_array_equal(arrays[name], values)
    assert whole["affs"].std() > 5


@pytest.mark.usefixtures("tiny_threads")
def test_tiles_without_tissue_are_zero_and_not_computed(large_case: Case, tmp_path: Path) -> None:
    raw = open_volume(large_case.raw, "volumes/raw")
    mask = np.ones(raw.array.shape, np.uint8)
    mask[:, 100:] = 0
    place: dict[str, Any] = {"voxel_size_nm": raw.voxel_size_nm, "offset_nm": raw.offset_nm}
    store = tmp_path / "tissue.zarr"
    create_volume(store, "m", shape=mask.shape, chunks=(64, 64, 64), dtype=np.uint8, **place)[
        ...
    ] = mask
    volume = large_case.settings()["volume"]
    volume["tissue_mask"] = {"path": str(store), "array": "m"}
    output = _predict(large_case, tmp_path / "p.zarr", tile=[64, 64, 64], volume=volume)
    arrays = sharded.arrays(output)["affs"]
    # Tiles of y 64 voxels from 20: the first two reach into the tissue, the third begins at 148.
    whole = sharded.arrays(_predict(large_case, tmp_path / "whole.zarr", tile=[64, 64, 64]))["affs"]
    np.testing.assert_array_equal(arrays[:, :, :128], whole[:, :, :128])
    assert whole[:, :, 128:].any() and not arrays[:, :, 128:].any()
    lines = output.with_name("p.blocks.jsonl").read_text().splitlines()
    assert sorted(json.loads(line).get("masked", 0) for line in lines) == [0, 0, 0, 0, 1, 1]


def test_tables_of_shards_add_up_to_the_whole(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    segment.main(fragments_arguments(tmp_path, **sharded.SETTINGS))
    fragments = open_volume(tmp_path / "fragments.zarr", "fragments")
    labels = (np.asarray(fragments.array[...]) % 5).astype(np.uint64)
    place: dict[str, Any] = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": OFFSET_NM}
    truth = {"path": str(tmp_path / "truth.zarr"), "array": "labels"}
    create_volume(
        Path(truth["path"]),
        "labels",
        shape=labels.shape,
        chunks=labels.shape,
        dtype=np.uint64,
        **place,
    )[...] = labels
    dataset = {"name": "tiny", "volumes": {"cube": {"labels": truth}}, "background_ids": []}
    entry = {"volume": "cube", "roi_nm": None}
    settings = {"dataset": dataset | {"validation": [entry]}, "thresholds": [0, 1, 0.1]}
    settings_option = ["--settings", json.dumps(settings)]
    stores = ["--fragments", f"cube={tmp_path / 'fragments.zarr'}"]
    evaluate.main(["choose", *settings_option, *stores, "--output", str(tmp_path / "whole.json")])
    tables = []
    for name in shard_names(3):
        tables.append(str(tmp_path / f"{name}.npz"))
        place = {"array": "fragments", "volume": "cube", "split": "validation"}
        counted = ["--settings", json.dumps({"dataset": settings["dataset"], **place})]
        counted += sharded.options(store=tmp_path / "fragments.zarr")
        evaluate.main(["count", *counted, "--shard", name, "--output", tables[-1]])
    by_shard = [
        *settings_option,
        *stores,
        "--fragment-tables",
        *(f"cube={table}" for table in tables),
    ]
    evaluate.main(["choose", *by_shard, "--output", str(tmp_path / "shards.json")])
    shards, whole = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("shards", "whole"))
    assert shards.pop("origin") and whole.pop("origin")
    assert shards == whole
    with pytest.raises(DataError, match="1 to 3 are needed"):
        evaluate.main(["choose", *by_shard[:-1], "--output", str(tmp_path / "two.json")])


def test_verify_names_damaged_stores_and_only_they_are_recomputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_prediction(tmp_path)
    sharded.make_fragments(tmp_path, 2)
    verify.main([str(tmp_path)])
    assert "4 stores, 0 damaged" in capsys.readouterr().out
    shard, other = sharded.shard_paths(tmp_path, "fragments", 2)
    chunk = next(path for path in (shard / "fragments").rglob("[0-9]") if path.is_file())
    with chunk.open("r+b") as file:
        file.write(b"?")
    with pytest.raises(SystemExit):
        verify.main([str(tmp_path)])
    # The chunk is the same file in the shard and in the assembled store.
    assert "2 damaged" in capsys.readouterr().out
    assert not manifest_path(shard).exists() and manifest_path(other).exists()
    assert not manifest_path(tmp_path / "shards" / "fragments.zarr").exists()


def test_a_chunk_that_does_not_decode_invalidates_its_store(tmp_path: Path) -> None:
    store = make_prediction(tmp_path)
    chunk = store / "affs" / "0" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"prediction.zarr/affs is damaged.*run the same command"):
        segment.main(fragments_arguments(tmp_path))
    assert not manifest_path(store).exists()
