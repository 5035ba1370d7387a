"""ZNN's networks as files: oracles of the original, h5, seeding, prediction, files of a .cfg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import predict
import tiny_znn as tiny
import train
from built_networks import built
from retrace.checkpoints.safetensors import load_model
from retrace.checkpoints.znn import (
    load_h5,
    network_file,
    read_h5,
    seed_from,
    stored_filters,
    torch_filters,
    write_h5,
)
from retrace.config.any_network import of_family
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.networks.tuning import set_convolution_modes
from retrace.planning import predict as planning_predict
from retrace.planning.train_settings import read_train_settings
from retrace.settings_model import as_json
from retrace.storage.normalised import open_normalised, symmetric_indices
from retrace.storage.volumes import open_volume
from retrace.training import build
from retrace.training.znn_files import sgd_of
from retrace.znn.graph import graph_from
from run_config import run_config
from tiny_training import arguments, training
from znn_trainings import run

pytestmark = pytest.mark.usefixtures("tiny_threads")


ORACLES = (
    "srini2d_gtruth_5x5_double_HEAD",
    "srini2d_gtruth_150x150_single_4c5143651f",
    "N4_A_even_gtruth_5x5_single_HEAD",
)


@pytest.mark.parametrize("name", ORACLES)
def test_a_network_of_the_original_gives_the_originals_output(shared_dir: Path, name: str) -> None:
    path = shared_dir / "oracles" / "znn" / f"{name}.h5"
    file = read_h5(path)
    network = "n4_a_even" if name.startswith("N4") else "srini2d"
    settings = resolved(network)
    module = built(settings).to(torch.float64 if "double" in name else torch.float32)
    load_h5(file, module)
    with h5py.File(path) as h5:
        patch = h5["processing/znn/train/patch"]
        x = torch.from_numpy(patch["inputs/input"][()])[None].to(next(module.parameters()).dtype)
        expected = patch["props/output"][()]
    with torch.no_grad():
        (output,) = module.eval().raw_outputs(x).values()
    output = output[0].softmax(0) if network == "srini2d" else output[0]

    tolerance = 1e-9 if "double" in name else 1e-5
    np.testing.assert_allclose(output.numpy(), expected, rtol=tolerance, atol=tolerance)


def resolved(name: str) -> dict[str, Any]:
    from retrace.config import datasets, networks

    return networks.network_for(name, datasets.load_dataset("vnc_nc"))


@pytest.mark.parametrize("name", ORACLES)
def test_a_file_of_the_original_is_written_as_it_was(
    shared_dir: Path, tmp_path: Path, name: str
) -> None:
    path = shared_dir / "oracles" / "znn" / f"{name}.h5"
    file = read_h5(path)
    copy = write_h5(type(file)(tmp_path / "copy.h5", file.layers, file.curve))
    written: dict[str, Any] = {}
    with h5py.File(path) as one, h5py.File(copy) as other:
        one.visititems(lambda key, item: written.setdefault(key, content(item)))
        for key, value in written.items():
            if key.startswith("processing/znn/train/patch") or value is None:
                continue
            if key.startswith(("processing/znn/train/network", "processing/znn/train/statistics")):
                assert content(other[key]) == value, key
    again = read_h5(copy)
    assert set(again.layers) == set(file.layers)


def content(item: Any) -> Any:
    """dtype, shape and bytes of a dataset; None for a group."""
    if not isinstance(item, h5py.Dataset):
        return None
    value = item[()]
    return (str(item.dtype), item.shape, value if isinstance(value, bytes) else value.tobytes())


def test_filters_are_reversed_in_memory_and_in_space() -> None:
    stored = np.arange(2 * 3 * 1 * 2 * 3, dtype=float).reshape(2, 3, 1, 2, 3)
    weight = torch_filters(stored)

    assert weight.shape == (3, 2, 1, 2, 3)
    flat = stored[1, 2].ravel()  # s0 fastest: here s1 is the next
    assert float(weight[2, 1, 0, 1, 2]) == flat[0]
    assert float(weight[2, 1, 0, 0, 2]) == flat[1]
    np.testing.assert_array_equal(stored_filters(weight), stored)


def test_a_trained_network_travels_through_h5(folder: Path) -> None:
    run(folder, 4)
    data = tiny.dataset(folder)
    settings = tiny.network(data)
    module = built(settings)
    load_model(folder / "model.safetensors", module, of_family(settings))
    curve = json.loads((folder / "training.json").read_text())["learning_curve"]
    path = write_h5(network_file(module, sgd_of(settings), curve, folder / "net.h5"))
    other = built(settings, seed=9)
    load_h5(read_h5(path), other)

    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert read_h5(path).curve["test"]["it"].tolist() == [4]
    with h5py.File(path) as file:
        assert file["processing/znn/train/network/conv1/size"][()].tolist() == [1, 4, 4]
        assert file["processing/znn/train/network/conv1/type"][()] == b"conv"


def test_seeding_takes_layers_of_equal_name_and_shape(folder: Path) -> None:
    data = tiny.dataset(folder)
    settings = tiny.network(data)
    source = built(settings, seed=1)
    path = write_h5(network_file(source, sgd_of(settings), {}, folder / "seed.h5"))
    wider = [tiny.LAYERS[0], tiny.LAYERS[1], tiny.LAYERS[2] | {"size": [1, 5, 5]}]
    module = built(tiny.network(data, layers=wider), seed=2)
    before = module.convolutions["conv2"].weight.clone()
    lines = seed_from(read_h5(path), module)

    assert torch.equal(module.convolutions["conv1"].weight, source.convolutions["conv1"].weight)
    assert torch.equal(module.convolutions["conv2"].weight, before)
    assert lines == ["conv2: [4, 2, 1, 3, 3] there, [2, 4, 1, 5, 5] here; begins as configured"]
    renamed = [{**layer, "to": f"x{layer['to']}"} for layer in tiny.LAYERS]
    for layer, kind in zip(renamed, ("conv", "max_filter", "conv"), strict=True):
        layer[kind] = f"x{layer[kind]}"
    with pytest.raises(DataError, match="holds another network: no layer has a name and shape"):
        seed_from(read_h5(path), built(tiny.network(data, layers=renamed)))


def test_training_begins_from_an_h5(folder: Path) -> None:
    data = tiny.dataset(folder)
    settings = tiny.network(data)
    source = built(settings, seed=8)
    path = write_h5(network_file(source, sgd_of(settings), {}, folder / "seed.h5"))
    plain, seeded = run(folder / "plain", 1), run(folder / "seeded", 1, "--init", str(path))

    models = [(f / "model.safetensors").read_bytes() for f in (plain, seeded)]
    assert models[0] != models[1]
    first = [json.loads((f / "training.json").read_text())["history"][0] for f in (plain, seeded)]
    assert first[0]["err"] != first[1]["err"]


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_h5(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no h5")
    with pytest.raises(DataError, match="cannot be read"):
        read_h5(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["main"] = np.zeros(3)
    with pytest.raises(DataError, match="holds no network of ZNN"):
        read_h5(tmp_path / "other.h5")
    with h5py.File(tmp_path / "nan.h5", "w") as file:
        file["conv1/group_type"] = "edge"
        file["conv1/filters"] = np.full((1, 1, 1, 2, 2), np.nan)
    with pytest.raises(DataError, match="'conv1' holds NaN"):
        read_h5(tmp_path / "nan.h5")


def test_images_are_on_a_scale_of_their_own(folder: Path) -> None:
    raw = tiny.cells()[0].astype(float)
    source = Source(path=str(folder / "raw.h5"), array="main", voxel_size_nm=(40, 10, 10))
    window = VoxelBox((1, -3, 38), (2, 6, 9))
    padded = np.pad(raw, [(0, 0), (3, 0), (0, 3)], mode="symmetric")
    sections = (1, 2)
    deviation = raw.std(sections, keepdims=True)
    kinds = {
        "standard2D": lambda v: (v - raw.mean(sections, keepdims=True)) / deviation,
        "standard3D": lambda v: (v - raw.mean()) / raw.std(),
        "symetric_rescale": lambda v: 2 * (v - raw.min()) / (raw.max() - raw.min()) - 1,
        "none": lambda v: v,
    }
    for kind, formula in kinds.items():
        image = open_normalised(source, kind)
        np.testing.assert_allclose(image.read(window), formula(padded)[1:3, :6, 38:47], atol=1e-9)


def test_mirroring_repeats_the_border() -> None:
    whole = np.pad(np.arange(4), 9, mode="symmetric")

    np.testing.assert_array_equal(symmetric_indices(-9, 13, 4), whole)


@pytest.mark.parametrize("tile", [[1, 9, 10], [2, 40, 44]])
def test_prediction_covers_the_volume_and_is_the_network(folder: Path, tile: list[int]) -> None:
    run(folder, 4)
    data = tiny.dataset(folder)
    net = tiny.network(data, parameters={"forward_outsz": tile})
    config = run_config(prediction_dtype="float32", device="cpu", precision="fp32", compile=False)
    settings = as_json(planning_predict.predict_settings(config, data, net, "stack"))
    places = ["--model", "model.safetensors", "--work", "pwork", "--output", "p.zarr"]
    predict.main(["--settings", settings, *places])
    predicted = open_volume(folder / "p.zarr", "boundary")
    module = built(net)
    load_model(folder / "model.safetensors", module, of_family(net))
    image = open_normalised(data.volumes["stack"].raw)
    window = VoxelBox((4, -4, -4), (2, 48, 52))
    with torch.no_grad():
        x = torch.from_numpy(image.read(window)).float()[None, None]
        expected = module.eval()(x)["boundary"][0]

    assert predicted.box == VoxelBox((4, 0, 0), (2, 40, 44))
    np.testing.assert_allclose(predicted.read(predicted.box), expected.numpy(), atol=1e-6)


def test_layers_are_measured_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.dataset(folder)
    net = tiny.network(data, parameters={"forward_conv_mode": "optimize"})
    module = built(net)
    cache = folder / "modes.json"
    device = torch.device("cpu")
    mode, shape = net.forward_conv_mode, net.inference_shape
    set_convolution_modes(module, mode, shape, device, training=False, cache=cache)
    known = json.loads(cache.read_text())

    assert len(known) == 2
    assert set(known.values()) <= {"direct", "fft"}
    other = dict.fromkeys(known, "fft")
    cache.write_text(json.dumps(other))
    set_convolution_modes(module, mode, shape, device, training=False, cache=cache)
    assert {layer.mode for layer in module.convolutions.values()} == {"fft"}
    assert graph_from(net.plain()["graph"]).parameters == sum(
        p.numel() for p in module.parameters()
    )


def test_a_network_of_znn_at_the_prefix_is_not_overwritten(folder: Path) -> None:
    """ZNN resumes from net_current.h5; another training must not begin in its place."""
    data = tiny.dataset(folder)
    current = folder / "nets/net_current.h5"
    current.parent.mkdir()
    current.write_bytes(b"trained by ZNN")
    files = {"prefix": str(folder / "nets/net"), "is_stdio": True}
    settings = training(data, tiny.network(data).with_(net_files=files), 4)

    with pytest.raises(DataError, match=r"net_current\.h5 exists and was not written for"):
        train.main(arguments(folder, settings))
    assert current.read_bytes() == b"trained by ZNN"
    current.rename(folder / "seed.h5")
    train.main(arguments(folder, settings))
    train.main(arguments(folder, {**settings, "iterations": 6}))


def test_networks_of_an_earlier_training_stay_until_another_one_is_complete(folder: Path) -> None:
    data = tiny.dataset(folder)
    files = {"prefix": str(folder / "nets/net"), "is_stdio": True}
    network = tiny.network(data).with_(net_files=files)
    train.main(arguments(folder, training(data, network, 8)))
    earlier = (folder / "nets/net_current.h5").read_bytes()

    other = training(data, network, 8, seed=9)
    train.main(arguments(folder, {**other, "seconds": 1e-9}))
    assert (folder / "nets/net_current.h5").read_bytes() == earlier
    train.main(arguments(folder, other))
    assert (folder / "nets/net_current.h5").read_bytes() != earlier
    assert not list((folder / "work").glob("*/net_files"))
    train.main(arguments(folder, {**other, "iterations": 12}))
    current = (folder / "nets/net_current.h5").read_bytes()
    assert current == (folder / "nets/net_12.h5").read_bytes()


def test_training_a_cfg_writes_its_network_files(folder: Path) -> None:
    """Written at the beginning and every 4 iterations, also by a resumed run."""
    for stdio in (True, False):
        place = folder / f"stdio_{stdio}"
        net_files = {"prefix": str(place / "nets/net"), "is_stdio": stdio}
        data = tiny.dataset(folder)
        place.mkdir()
        for iterations in (6, 9):
            settings = training(data, tiny.network(data).with_(net_files=net_files), iterations)
            train.main(arguments(place, settings))
        files = sorted(path.name for path in (place / "nets").iterdir())
        names = ["4", "8", "current", "init"]
        if not stdio:
            names += ["statistics_4", "statistics_8", "statistics_current"]
        assert files == [f"net_{name}.h5" for name in names]

        last = read_h5(place / "nets/net_8.h5")
        assert (place / "nets/net_current.h5").read_bytes() == last.path.read_bytes()
        first = read_h5(place / "nets/net_init.h5")
        assert not first.layers["conv1"].arrays["momentum_vol"].any()
        assert not np.array_equal(first.layers["conv1"].values, last.layers["conv1"].values)
        curve: Any = last.curve
        if not stdio:
            assert not curve
            with h5py.File(place / "nets/net_statistics_8.h5") as file:
                curve = {k: {n: v[()] for n, v in file[k].items()} for k in ("train", "test")}
        expected = json.loads((place / "training.json").read_text())["learning_curve"]
        assert list(curve["train"]["it"]) == expected["train"]["it"] == [2, 4, 6, 8]
        np.testing.assert_allclose(curve["train"]["err"], expected["train"]["err"])
        assert list(curve["test"]["it"]) == [4, 8]

        # Weights and velocities are those of the training: one more step from them is its step.
        settings = training(data, tiny.network(data), 9)
        trainer = build.build_trainer(read_train_settings(settings), {}, folder / "none")
        module = trainer.module
        trainer.optimizer.param_groups[0]["steps"] = 8
        assert seed_from(last, module, trainer.optimizer.velocity) == []
        values = trainer._loss(trainer.task.batch(8))[1]
        values.sum().backward()
        trainer.optimizer.step()
        end = load_file(place / "model.safetensors")
        for name, weight in module.state_dict().items():
            torch.testing.assert_close(weight, end[name], rtol=1e-5, atol=1e-7)
