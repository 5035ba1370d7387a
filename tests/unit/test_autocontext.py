"""Auto-context networks: their input in training and prediction, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import predict
import tiny_training as tiny
import train
from built_networks import built
from prediction_case import NETWORK, OFFSET_NM, VOXEL_SIZE_NM, Case, make_case
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.config import compatibility, datasets, networks
from retrace.config.any_network import of_family
from retrace.errors import ConfigError, DataError
from retrace.networks import UNet
from retrace.planning import predict as planning_predict
from retrace.planning.train_settings import read_train_settings
from retrace.storage.manifest import write_manifest
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume
from retrace.training import build, task
from run_config import run_config

pytestmark = pytest.mark.usefixtures("tiny_threads")

LSD = tiny.network(
    name="tiny_lsd",
    heads=[{"name": "lsds", "channels": 10}],
    neighborhood=[],
    downsample=[[2, 2, 2]],
)
AFFS = [{"name": "affs", "channels": 3}]


def autocontext(channels: int) -> dict[str, Any]:
    return tiny.network(
        name="tiny_ac", input_channels=channels, autocontext="tiny_lsd", heads=AFFS, lsd=None
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_volume(tmp_path_factory.mktemp("volume") / "cube.zarr")


@pytest.fixture(scope="module")
def lsd_model(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lsd")
    train.main(tiny.arguments(folder, tiny.settings(store, 2, network=LSD)))
    return folder / "model.safetensors"


def settings(store: Path, channels: int, iterations: int = 3) -> dict[str, Any]:
    both = {"network": autocontext(channels), "autocontext": LSD}
    return tiny.settings(store, iterations, **both)


@pytest.mark.parametrize("channels", [10, 11])
def test_it_reads_truncated_descriptors_and_raw_before_them(
    store: Path, lsd_model: Path, tmp_path: Path, channels: int
) -> None:
    chosen = settings(store, channels)
    trainer = build.build_trainer(
        read_train_settings(chosen), {}, tmp_path, task.WeightFiles(context=lsd_model)
    )
    module = trainer.module
    batch = trainer.task.batch(0)
    # 24 voxels of descriptors need 40 of raw; nothing smaller without pooling remainder gives them.
    assert batch["raw"].shape == (1, 1, 40, 40, 40)
    assert batch["affs"].shape == (3, 8, 8, 8)
    received: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    outputs = trainer.task.predict(module, batch)
    hook.remove()
    assert received[0].shape == (1, channels, 24, 24, 24)
    levels = received[0][0, -10:] * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    first = built(LSD)
    load_model(lsd_model, first, of_family(LSD))
    with torch.no_grad():
        plain = first(batch["raw"])["lsds"][0]
    assert ((plain - received[0][0, -10:]) >= -1e-6).all()  # truncated, never rounded up
    assert (plain - received[0][0, -10:]).max() <= 1 / 255 + 1e-6
    if channels == 11:
        assert torch.equal(received[0][0, 0], batch["raw"][0, 0, 8:32, 8:32, 8:32])
    shown = trainer.task.pictures(outputs, batch)
    assert shown["raw"].data.shape == (40, 40, 40)
    assert torch.equal(shown["pretrained_lsds"].data, levels.round().to(torch.uint8))
    starts = {name: picture.offset_nm[0] for name, picture in shown.items()}
    raw, lsds = starts["raw"], starts["pretrained_lsds"]
    assert (lsds - raw, starts["pred_affs"] - raw) == (80, 160)


def test_training_leaves_the_descriptor_network_alone_and_resumes(
    store: Path, lsd_model: Path, tmp_path: Path
) -> None:
    before = lsd_model.read_bytes()
    more = ("--context", str(lsd_model))
    train.main(tiny.arguments(tmp_path / "a", settings(store, 11, 5), *more))
    train.main(tiny.arguments(tmp_path / "b", settings(store, 11, 3), *more))
    train.main(tiny.arguments(tmp_path / "b", settings(store, 11, 5), *more))
    one, other = (tmp_path / n / "model.safetensors" for n in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert lsd_model.read_bytes() == before


def test_the_model_of_the_descriptors_is_required(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny_lsd' predicts; give its model with --context"):
        train.main(tiny.arguments(tmp_path, settings(store, 10)))


def test_a_context_of_another_network_is_refused(
    store: Path, lsd_model: Path, tmp_path: Path
) -> None:
    chosen = settings(store, 10)
    chosen["autocontext"] = LSD | {"fmaps": 5}
    with pytest.raises(DataError, match="fmaps"):
        train.main(tiny.arguments(tmp_path, chosen, "--context", str(lsd_model)))


# ---------------------------------------------------------------- prediction

READER = NETWORK.with_(name="reader", heads=AFFS, autocontext="tiny")


def write_descriptors(path: Path, voxel_size_nm: Any = VOXEL_SIZE_NM, channels: int = 10) -> Path:
    """Descriptors of noise on the inner part of the raw that `make_case` writes."""
    offset = [o + 12 * v for o, v in zip(OFFSET_NM, voxel_size_nm, strict=True)]
    values = np.random.default_rng(5).integers(0, 256, (channels, 16, 20, 18), dtype=np.uint8)
    array = create_volume(
        path,
        "lsds",
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        voxel_size_nm=voxel_size_nm,
        offset_nm=offset,
    )
    array[...] = values
    write_manifest(path, inputs=[], settings={}, seconds=0.0, extra=None)
    return path


def reader_case(folder: Path, channels: int) -> tuple[Case, UNet, dict[str, Any]]:
    case = make_case(folder)
    network = READER.with_(input_channels=channels).plain()
    module = built(network, seed=4).eval()
    with torch.no_grad():
        module.heads["affs"].weight.mul_(30)
    save_model(case.model, module, {"network": network})
    lsds = write_descriptors(folder / "lsds.zarr")
    changes = {
        "network": network,
        "heads": ["affs"],
        "descriptors": {"path": str(lsds), "array": "lsds"},
        "dtype": "float32",
    }
    return case, module, changes


@pytest.mark.parametrize("channels", [10, 11])
@pytest.mark.parametrize("tile", [[4, 8, 8], [100, 100, 100]])
def test_prediction_covers_the_descriptors_which_end_in_zeros(
    tmp_path: Path, channels: int, tile: list[int]
) -> None:
    case, module, changes = reader_case(tmp_path, channels)
    predict.main(case.arguments(tile=tile, **changes))
    predicted = zarr.open(case.output, mode="r")["affs"]
    lsds = open_volume(tmp_path / "lsds.zarr", "lsds")
    assert predicted.shape == (3, 16, 20, 18)
    assert predicted.attrs["offset"] == list(lsds.offset_nm)
    raw = open_volume(case.raw, "volumes/raw").array[...].astype(np.float32) / 255 * 2 - 1
    # Half a context (12, 20, 20) around the descriptors, up to a size without pooling remainder.
    window = (slice(None), *(slice(n) for n in module.valid_shape((16, 20, 18))))
    lead = [(0, 0), (12, 60), (20, 60), (20, 60)]
    network_input = np.pad(lsds.array[...].astype(np.float32) / 255, lead)[window]
    if channels == 11:
        # The descriptors begin 12 voxels inside the raw: 8 more are mirrored in y and x.
        around = np.pad(raw, [(0, 30), (8, 30), (8, 30)], "reflect")[None][window]
        network_input = np.concatenate((around, network_input))
    with torch.inference_mode():
        expected = module(torch.from_numpy(network_input)[None])["affs"][
            0, :, :16, :20, :18
        ].numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(predicted[...], expected, atol=1e-5)


def test_descriptors_of_another_voxel_size_are_refused(tmp_path: Path) -> None:
    case, _, changes = reader_case(tmp_path, 11)
    other = write_descriptors(tmp_path / "other.zarr", voxel_size_nm=(10, 9, 9))
    changes["descriptors"] = {"path": str(other), "array": "lsds"}
    with pytest.raises(DataError, match=r"other.zarr.*\[10, 9, 9\] nm, raw of \[20, 9, 9\]"):
        predict.main(case.arguments(**changes))
    assert not case.output.exists()


def test_too_few_descriptors_are_refused(tmp_path: Path) -> None:
    case, _, changes = reader_case(tmp_path, 11)
    other = write_descriptors(tmp_path / "other.zarr", channels=6)
    changes["descriptors"] = {"path": str(other), "array": "lsds"}
    with pytest.raises(DataError, match="has 6 channels; the network reads 11"):
        predict.main(case.arguments(**changes))


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("dataset", "raw", "descriptors"),
    [
        ("zfinch", (120, 484, 484), (84, 268, 268)),
        ("fib25", (304, 304, 304), (196, 196, 196)),
        ("hemi", (304, 304, 304), (196, 196, 196)),
    ],
)
def test_01_the_papers_auto_context_sizes(
    dataset: str, raw: tuple[int, ...], descriptors: tuple[int, ...]
) -> None:
    data = datasets.load_dataset(dataset)
    for name, channels in (("aclsd", 10), ("acrlsd", 11)):
        network = networks.network_for(name, data)
        context = networks.context_network(network, data)
        assert context is not None and context.name == "lsd"
        assert tuple(network.input_shape) == descriptors
        assert built(context, device="meta").valid_shape(descriptors) == raw
        assert network.input_channels == channels
        compatibility.check_pair(data, network, "evaluate")


def test_descriptors_extend_half_a_context_beyond_the_requested_box() -> None:
    data = datasets.load_dataset("fib25_sample")
    config = run_config()
    reader = networks.network_for("acrlsd_small", data)
    lsd = networks.network_for("lsd_small", data)
    reader_roi = planning_predict.predict_settings(config, data, reader, "cube").volume.roi_nm
    lsd_roi = planning_predict.predict_settings(config, data, lsd, "cube").volume.roi_nm
    lead = 10 * (84 - 44) // 2
    assert [a - m for a, m in zip(reader_roi.offset, lsd_roi.offset, strict=True)] == [lead] * 3
    assert [m - a for a, m in zip(reader_roi.shape, lsd_roi.shape, strict=True)] == [2 * lead] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"autocontext": "baseline"}, r"autocontext 'baseline' predicts \['affs'\]"),
        ({"autocontext": None}, "10 input channels, but raw has 1 and autocontext None"),
        ({"input_channels": 5}, "5 input channels"),
    ],
)
def test_impossible_combinations_are_refused(change: dict[str, Any], message: str) -> None:
    data = datasets.load_dataset("zfinch")
    network = networks.network_for("aclsd", data).with_(**change)
    with pytest.raises(ConfigError, match=message):
        compatibility.check_pair(data, network, "train")
