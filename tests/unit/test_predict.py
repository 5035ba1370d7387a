"""Tiled prediction: position, equality with one pass, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import predict
from built_networks import is_valid_shape
from prediction_case import (
    NETWORK,
    OFFSET_NM,
    VOXEL_SIZE_NM,
    Case,
    make_case,
    store_bytes,
    tiny_network,
    write_raw,
)
from retrace.checkpoints.safetensors import save_model
from retrace.errors import ConfigError, DataError, DeviceError
from retrace.geometry import VoxelBox
from retrace.inference import build
from retrace.inference.forward import Forward
from retrace.inference.pipeline import overlapped
from retrace.inference.predictor import Predictor, to_stored
from retrace.inference.tile_shape import choose_tile, plan_tile
from retrace.inference.tiles import (
    output_box,
    read_reflected,
    reflected_indices,
    tile_for,
    tiles,
)
from retrace.networks import UNet
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_volume

pytestmark = pytest.mark.usefixtures("tiny_threads")
CPU = torch.device("cpu")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


def _affs(case: Case) -> np.ndarray:
    return np.asarray(zarr.open(case.output, mode="r")["affs"][...])


def _one_pass(case: Case) -> np.ndarray:
    """Affinities of the whole raw in one forward pass of the plain network (valid part)."""
    raw = open_volume(case.raw, "volumes/raw").array[...].astype(np.float32)
    shape = tiny_network().valid_shape(
        [s - c for s, c in zip(raw.shape, (24, 40, 40), strict=True)]
    )
    padded = np.pad(raw, [(0, n - s) for n, s in zip(shape, raw.shape, strict=True)], "reflect")
    with torch.inference_mode():
        affs = tiny_network()(torch.from_numpy(padded / 255 * 2 - 1)[None, None])["affs"][0]
    return affs[:, :16, :20, :18].numpy()


def test_output_begins_half_a_context_inside_the_raw(case: Case) -> None:
    predict.main(case.arguments())
    group = zarr.open(case.output, mode="r")
    assert group["affs"].shape == (3, 16, 20, 18)
    assert group["lsds"].shape == (10, 16, 20, 18)
    assert group["affs"].dtype == np.uint8
    assert group["affs"].attrs["resolution"] == list(VOXEL_SIZE_NM)
    expected = [
        o + 12 * v if v == 20 else o + 20 * v for o, v in zip(OFFSET_NM, VOXEL_SIZE_NM, strict=True)
    ]
    assert group["affs"].attrs["offset"] == expected
    assert check_manifest(case.output, digests=True)["arrays"]["affs"]["chunk_count"] == 1


@pytest.mark.parametrize("tile", [[2, 4, 4], [8, 16, 16], [6, 8, 12], [100, 100, 100], "auto"])
def test_any_grid_equals_one_big_pass(case: Case, tile: Any) -> None:
    predict.main(case.arguments(tile=tile, dtype="float32"))
    expected = _one_pass(case)
    assert expected.std() > 0.05
    np.testing.assert_allclose(_affs(case), expected, atol=2e-6)


def test_reflected_prediction_covers_the_raw_and_contains_the_valid_one(case: Case) -> None:
    predict.main(case.arguments())
    valid = _affs(case)
    # Tiles start at the raw's corner here and 12, 20, 20 inside before: multiples of the stride.
    predict.main(case.arguments(network={"predict_padding": "reflect"}))
    whole = _affs(case)
    assert whole.shape == (3, 40, 60, 58)
    inner = whole[:, 12:28, 20:40, 20:38].astype(int)
    # Where the valid tile's own end was mirrored, its last stride may differ.
    assert np.abs(inner - valid)[:, :-2, :-4, :-4].max() <= 1


def test_region_of_interest_uses_the_raw_around_it(case: Case) -> None:
    predict.main(case.arguments())
    whole = _affs(case)
    roi = {"offset": [OFFSET_NM[0] + 16 * 20, OFFSET_NM[1] + 24 * 9, OFFSET_NM[2] + 24 * 9]}
    roi["shape"] = [6 * 20, 8 * 9, 5 * 9]
    arguments = case.settings()
    arguments["volume"]["roi_nm"] = roi
    predict.main(case.arguments(volume=arguments["volume"]))
    part = open_volume(case.output, "affs")
    assert list(part.offset_nm) == roi["offset"]
    difference = np.abs(part.array[...].astype(int) - whole[:, 4:10, 4:12, 4:9])
    assert difference.max() <= 1


@pytest.mark.parametrize("part", ["tissue_mask", "roi_of"])
def test_masks_and_labels_without_a_place_are_refused(
    case: Case, tmp_path: Path, part: str
) -> None:
    """The raw does not begin at 0, where they would be."""
    store = zarr.create_array(tmp_path / "m.zarr", shape=(40, 60, 58), dtype="u1", chunks=(40,) * 3)
    store[...] = 1
    source = {"path": str(tmp_path / "m.zarr"), "voxel_size_nm": list(VOXEL_SIZE_NM)}
    volume = {**case.settings()["volume"], part: source}
    with pytest.raises(DataError, match="m.zarr states no position, and .* begins at"):
        predict.main(case.arguments(volume=volume))


def test_chosen_heads_only(case: Case) -> None:
    predict.main(case.arguments(heads=["affs"]))
    assert sorted(zarr.open(case.output, mode="r").array_keys()) == ["affs"]


def test_15_uint8_is_truncated() -> None:
    values = torch.tensor([0.0, 0.999, 1.0, 0.5, 254.999 / 255])
    assert to_stored(values, "uint8").tolist() == [0, 254, 255, 127, 254]


def test_out_of_memory_halves_the_tile_and_continues() -> None:
    network = tiny_network()
    plenty = Predictor(network, CPU, heads=("affs",), dtype="float32")
    scarce = Predictor(network, CPU, heads=("affs",), dtype="float32")
    sizes: list[int] = []

    class Limited(Forward):
        def __call__(self, x: torch.Tensor) -> Any:
            sizes.append(x.numel())
            if x.numel() > 120_000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(x)

    scarce.forward = Limited(network, CPU)
    data = np.random.default_rng(0).integers(0, 256, (60, 80, 80), dtype=np.uint8)
    raw = Volume(data, (8, 8, 8), (0, 0, 0), "raw")
    tile = tile_for(network, output_box(raw, network, "valid"))
    window = plenty.staged(read_reflected(raw, tile.window)[None])
    halved = scarce(tile, window)["affs"]
    assert sizes[0] > 120_000
    np.testing.assert_allclose(halved, plenty(tile, window)["affs"], atol=2e-6)
    count = len(sizes)
    scarce(tile, window)
    assert max(sizes[count:]) <= 120_000


def test_out_of_memory_for_one_stride_is_an_error() -> None:
    network = tiny_network()
    predictor = Predictor(network, CPU, heads=("affs",))
    predictor._too_large = 1
    tile = tile_for(network, VoxelBox((12, 20, 20), (2, 4, 4)))
    with pytest.raises(DeviceError, match="fmaps"):
        predictor(tile, torch.zeros((1, *tile.window.shape), dtype=torch.uint8))


@given(begin=st.integers(-200, 200), length=st.integers(1, 100), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_mirrored_indices_are_numpys_reflection(begin: int, length: int, size: int) -> None:
    before, after = max(0, -begin), max(0, begin + length - size)
    whole = np.pad(np.arange(size), (before, after), "reflect" if size > 1 else "edge")
    at = begin + before
    np.testing.assert_array_equal(
        reflected_indices(begin, begin + length, size), whole[at : at + length]
    )


@given(box=st.tuples(*[st.integers(1, 60)] * 3), tile=st.tuples(*[st.integers(1, 8)] * 3))
@settings(max_examples=40, deadline=None)
def test_tiles_cover_the_box_once(box: tuple[int, int, int], tile: tuple[int, int, int]) -> None:
    network = UNet(1, 1, 1, [[1, 2, 2], [2, 2, 2]], {"affs": 3})
    shape = [n * s for n, s in zip(tile, network.stride, strict=True)]
    covered = np.zeros(box, dtype=int)
    for part in tiles(network, VoxelBox((5, 6, 7), box), shape):
        covered[part.core.slices((5, 6, 7))] += 1
        assert is_valid_shape(network, part.window.shape)
        assert all(
            o % s == b % s
            for o, b, s in zip(part.core.offset, (5, 6, 7), network.stride, strict=True)
        )
    assert (covered == 1).all()


def test_automatic_tile_keeps_within_memory_and_grows_with_it() -> None:
    network = UNet(1, 12, 5, [[1, 3, 3], [1, 3, 3], [3, 3, 3]], {"affs": 3})
    box = VoxelBox((0, 0, 0), (292, 444, 444))
    shapes = [choose_tile(network, box, network.stride, limit) for limit in (8e6, 30e6, 1e9)]
    sizes = [int(np.prod(network.valid_shape(shape))) for shape in shapes if shape]
    assert len(sizes) == 3
    assert sizes == sorted(sizes)
    assert sizes[0] <= 8e6
    assert choose_tile(network, box, network.stride, 1e5) is None
    with pytest.raises(DeviceError, match="memory"):
        plan_tile(network, box, "auto", 1e5)
    assert plan_tile(network, box, [60, 272, 272], 0) == (60, 270, 270)


def test_overlapped_raises_the_first_error_and_stops() -> None:
    written: list[int] = []

    def write(item: int, value: int) -> None:
        if item == 3:
            raise OSError("disk")
        written.append(value)

    with pytest.raises(OSError, match="disk"):
        list(overlapped(range(50), lambda i: i, lambda i, v: v * 2, write))
    assert written[:3] == [0, 2, 4]
    assert len(written) < 10


def test_a_second_run_gives_the_same_bytes(case: Case) -> None:
    predict.main(case.arguments())
    first = store_bytes(case.output)
    predict.main(case.arguments())
    assert store_bytes(case.output) == first
    assert not list((case.folder / "work").iterdir())


def test_raw_is_not_touched(case: Case) -> None:
    before = store_bytes(case.raw)
    predict.main(case.arguments())
    assert store_bytes(case.raw) == before


def test_volume_smaller_than_the_field_of_view(tmp_path: Path) -> None:
    case = make_case(tmp_path, (20, 60, 60))
    with pytest.raises(DataError, match="field of view.*reflect"):
        predict.main(case.arguments())
    assert not case.output.exists()


def _float_case(tmp_path: Path, bad: float) -> Case:
    values = np.random.default_rng(0).random((30, 50, 50)).astype(np.float32)
    values[7, 8, 9] = bad
    case = make_case(tmp_path / "model")
    return Case(tmp_path, write_raw(tmp_path / "raw.zarr", values.shape, values), case.model)


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (1.5, r"\[0, 1\]")])
def test_bad_raw_values(tmp_path: Path, bad: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predict.main(_float_case(tmp_path, bad).arguments())


def test_float_raw_in_range_predicts(tmp_path: Path) -> None:
    case = _float_case(tmp_path, 0.5)
    predict.main(case.arguments())
    assert _affs(case).shape == (3, 6, 10, 10)


def test_model_of_another_width(case: Case) -> None:
    with pytest.raises(DataError, match="fmaps"):
        predict.main(case.arguments(network={"fmaps": 4}))


def test_damaged_weights(case: Case) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.heads["affs"].weight[0] = float("nan")
    save_model(case.model, network, {"network": NETWORK.plain()})
    with pytest.raises(DataError, match="heads.affs.weight"):
        predict.main(case.arguments())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu(case: Case) -> None:
    with pytest.raises(DeviceError, match="GPU"):
        predict.main(case.arguments(device="cuda"))


def test_unknown_head_and_dtype(case: Case) -> None:
    with pytest.raises(ConfigError, match="did you mean 'affs'"):
        predict.main(case.arguments(heads=["aff"]))
    with pytest.raises(ConfigError, match="uint8"):
        predict.main(case.arguments(dtype="uint16"))


def test_settings_must_be_json(case: Case) -> None:
    with pytest.raises(ConfigError, match="--settings is not JSON"):
        predict.main(["--settings", "{tile}", *case.arguments()[2:]])
    assert json.loads(case.arguments()[1])["dtype"] == "uint8"


def test_two_devices_give_the_same_result_as_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict.main(case.arguments(tile=[2, 4, 8]))
    one = store_bytes(case.output)
    predictors = []
    original = Predictor.__call__

    def call(self: Predictor, *arguments: Any) -> Any:
        predictors.append(id(self))
        return original(self, *arguments)

    monkeypatch.setattr(Predictor, "__call__", call)
    monkeypatch.setattr(build, "choose_devices", lambda *_: [CPU, CPU])
    predict.main(case.arguments(tile=[2, 4, 8], gpus=2))
    assert len(set(predictors)) == 2
    assert store_bytes(case.output) == one


def test_an_error_on_one_device_ends_the_prediction(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def call(self: Predictor, *arguments: Any) -> Any:
        calls.append(self)
        raise DeviceError("this card fell off the bus")

    monkeypatch.setattr(Predictor, "__call__", call)
    monkeypatch.setattr(build, "choose_devices", lambda *_: [CPU, CPU])
    with pytest.raises(DeviceError, match="fell off"):
        predict.main(case.arguments())
    assert len(calls) <= 2 and not case.output.exists()
