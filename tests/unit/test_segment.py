"""segment.py from prediction to segments, on a tiny volume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import zarr
from scipy import ndimage

import segment
from retrace.config.workflow import MULTICUT, Segment
from retrace.errors import ConfigError, DataError
from retrace.planning.segment_settings import MUTEX, read_segmentation_settings
from retrace.segmentation import volume
from retrace.segmentation.agglomerate import MERGE_FUNCTIONS
from retrace.segmentation.fragments import renumber
from retrace.storage.manifest import check_manifest, read_manifest, write_manifest
from retrace.storage.zarr_writer import create_volume

VOXEL_SIZE_NM = (20, 9, 9)
OFFSET_NM = (100, 90, -18)


def make_prediction(folder: Path, shape: tuple[int, int, int] = (16, 40, 44)) -> Path:
    """Smoothed noise as affinities, similar to cells a few voxels wide."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((3, *shape)), (0, 1, 2, 2))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    store = folder / "prediction.zarr"
    array = create_volume(
        store,
        "affs",
        shape=smooth.shape,
        chunks=(3, 8, 32, 32),
        dtype=np.uint8,
        voxel_size_nm=VOXEL_SIZE_NM,
        offset_nm=OFFSET_NM,
    )
    array[...] = (smooth * 255).astype(np.uint8)
    write_manifest(store, inputs=[], settings={}, seconds=0)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_prediction(tmp_path)
    return tmp_path


def fragments_arguments(folder: Path, *more: str, **settings: Any) -> list[str]:
    """The command line of `segment.py fragments` in `folder`."""
    places = {"--prediction": "prediction.zarr", "--work": "work", "--output": "fragments.zarr"}
    flat = [part for option, name in places.items() for part in (option, str(folder / name))]
    return ["fragments", "--settings", json.dumps(settings), *flat, *more]


def _run(folder: Path, *more: str, **settings: Any) -> dict[str, np.ndarray]:
    segment.main(fragments_arguments(folder, *more, **settings))
    group = zarr.open(folder / "fragments.zarr", mode="r")
    return {name: np.asarray(group[name][...]) for name in ("fragments", "edges", "scores")}


def _apply(folder: Path, threshold: Any) -> np.ndarray:
    (folder / "threshold.json").write_text(json.dumps({"threshold": threshold}))
    places = {"--fragments": "fragments.zarr", "--threshold-file": "threshold.json"}
    flat = [part for option, name in places.items() for part in (option, str(folder / name))]
    segment.main(["apply", *flat, "--output", str(folder / "segmentation.zarr")])
    return np.asarray(zarr.open(folder / "segmentation.zarr", mode="r")["segments"][...])


def test_fragments_and_graph(folder: Path) -> None:
    result = _run(folder, fragments_in_xy=True)
    ids = np.unique(result["fragments"])
    assert result["fragments"].dtype == result["edges"].dtype == np.uint64
    assert result["scores"].dtype == np.float32
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    assert set(np.unique(result["edges"])) <= set(ids)
    assert (result["edges"][:, 0] < result["edges"][:, 1]).all()
    assert len(np.unique(result["edges"], axis=0)) == len(result["edges"]) == len(result["scores"])
    attributes = zarr.open(folder / "fragments.zarr", mode="r")["fragments"].attrs
    assert attributes["offset"] == list(OFFSET_NM)
    assert attributes["resolution"] == list(VOXEL_SIZE_NM)
    check_manifest(folder / "fragments.zarr", digests=True)


def test_segments_grow_with_the_threshold(folder: Path) -> None:
    fragments = _run(folder, fragments_in_xy=True)["fragments"]
    counts = [len(np.unique(_apply(folder, t))) for t in (0, 0.3, 0.4, 0.98)]
    assert counts[0] == len(np.unique(fragments))
    assert counts == sorted(counts, reverse=True)
    assert counts[1] > counts[2] > counts[3] >= 1
    manifest = check_manifest(folder / "segmentation.zarr", digests=True)
    assert manifest["threshold"] == 0.98
    assert manifest["arrays"]["segments"]["offset_nm"] == list(OFFSET_NM)


def test_segment_ids_are_their_smallest_fragment(folder: Path) -> None:
    fragments = _run(folder, fragments_in_xy=True)["fragments"]
    segments = _apply(folder, 0.4)
    for segment_id in np.unique(segments):
        assert fragments[segments == segment_id].min() == segment_id


def test_options_change_the_result(folder: Path) -> None:
    base = {"fragments_in_xy": True}
    plain = _run(folder, **base)
    assert _run(folder, **base, method="mean")["scores"].tolist() != plain["scores"].tolist()
    assert _run(folder, **base, epsilon=0.45)["fragments"].max() < plain["fragments"].max()
    assert (_run(folder, **base, filter_fragments=0.5)["fragments"] == 0).any()
    assert _run(folder)["fragments"].max() < plain["fragments"].max()


def test_mutex_gives_its_segments_as_fragments(folder: Path) -> None:
    result = _run(folder, method="mutex", mutex_bias=[0.45, 0.45])
    assert result["edges"].shape == (0, 2)
    assert result["scores"].shape == (0,)
    assert result["fragments"].max() > 10
    np.testing.assert_array_equal(_apply(folder, 0.5), result["fragments"])


def test_mask_leaves_background(folder: Path) -> None:
    mask = np.ones((8, 40, 44), dtype=np.uint8)
    mask[:, :, 20:] = 0
    array = create_volume(
        folder / "mask.zarr",
        "labels_mask",
        shape=mask.shape,
        chunks=mask.shape,
        dtype=np.uint8,
        voxel_size_nm=(40, 9, 9),
        offset_nm=OFFSET_NM,
    )
    array[...] = mask
    source = {"path": str(folder / "mask.zarr"), "array": "labels_mask"}
    fragments = _run(folder, tissue_mask=source)["fragments"]
    assert not fragments[:, :, 20:].any()
    assert fragments[:, :, :20].all()


def test_blocks_are_whole_and_joined_across_borders(folder: Path) -> None:
    result = _run(folder, fragments_in_xy=True, block_shape=[8, 20, 22], block_context=[2, 10, 10])
    assert (result["fragments"] > 0).all()
    block_of = (result["edges"] - 1) // (8 * 20 * 22)
    assert (block_of[:, 0] != block_of[:, 1]).any()
    for block in range(8):
        z, y, x = block // 4 * 8, block // 2 % 2 * 20, block % 2 * 22
        part = result["fragments"][z : z + 8, y : y + 20, x : x + 22]
        assert ((part - 1) // (8 * 20 * 22) == block).all()
    assert len(np.unique(_apply(folder, 0.98))) == 1
    assert read_manifest(folder / "fragments.zarr")["blocks"] == 8


def test_a_block_that_sees_everything_equals_the_whole(folder: Path) -> None:
    whole_volume = _run(folder, fragments_in_xy=True)
    cut = _run(folder, fragments_in_xy=True, block_shape=[8, 40, 44], block_context=[16, 0, 0])
    # Sections are independent, so blocks of whole sections change the ids only.
    np.testing.assert_array_equal(renumber(cut["fragments"]), whole_volume["fragments"])
    assert len(cut["edges"]) == len(whole_volume["edges"])
    np.testing.assert_array_equal(np.sort(cut["scores"]), np.sort(whole_volume["scores"]))


def test_too_large_for_memory_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "BYTES_PER_VOXEL", 10**9)
    with pytest.raises(DataError, match="block_shape"):
        segment.main(fragments_arguments(folder))
    assert not list(folder.glob("fragments*"))


def test_unfinished_prediction_is_refused(folder: Path) -> None:
    (folder / "prediction.manifest.json").unlink()
    with pytest.raises(DataError, match="never finished"):
        segment.main(fragments_arguments(folder))


def test_prediction_of_another_version_is_refused(folder: Path) -> None:
    path = folder / "prediction.manifest.json"
    content = json.loads(path.read_text()) | {"format_version": 0}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="another version"):
        segment.main(fragments_arguments(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "hist_quant75"}, "did you mean 'hist_quant_75"),
        ({"metod": "mean"}, "did you mean 'method'"),
        ({"epsilon": 3}, "epsilon.*0"),
        ({"neighborhood": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "direct neighbours"),
        ({"method": "mutex", "block_shape": [8, 8, 8]}, "block_shape: null"),
        ({"mutex_bias": [0.5]}, "mutex_bias"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_segmentation_settings(settings)


def test_config_offers_every_merge_function_mutex_watershed_and_multicut() -> None:
    methods = get_args(Segment.model_fields["method"].annotation)
    assert set(methods) == {*MERGE_FUNCTIONS, MUTEX, MULTICUT}


def test_channels_must_match_the_network(folder: Path) -> None:
    far = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -9]]
    with pytest.raises(ConfigError, match="3 channels.*4"):
        segment.main(fragments_arguments(folder, neighborhood=far))


@pytest.mark.parametrize("value", [None, 1.5, "0.5"])
def test_bad_threshold_file(folder: Path, value: Any) -> None:
    _run(folder, fragments_in_xy=True)
    with pytest.raises(DataError, match="threshold"):
        _apply(folder, value)
    assert not (folder / "segmentation.zarr").exists()
