"""Training of the family elektronn on labelled volumes, and its scores."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import evaluate_classes
import predict
import tiny_elektronn as tiny
import train
from built_networks import built
from retrace.checkpoints.elektronn import write_param
from retrace.config import compatibility, datasets
from retrace.config.any_network import of_family
from retrace.errors import ConfigError, DataError
from retrace.evaluation.class_tally import ClassTally, probabilities_of
from retrace.evaluation.classes import class_scores
from retrace.formats.source import Source
from retrace.planning import evaluate
from retrace.planning import predict as planning_predict
from retrace.planning.train_settings import read_train_settings
from retrace.settings_model import as_json
from retrace.storage.volumes import open_source
from retrace.targets.classes import class_labels
from retrace.training import build
from retrace.training.prefetch import Prefetcher
from run_config import run_config
from settings_changes import with_volume
from tiny_training import arguments, training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_cubes(tmp_path)
    return tmp_path


@pytest.mark.parametrize("warp", [0.0, 1.0])
def test_labels_lie_on_their_voxels(folder: Path, warp: float) -> None:
    """Every label is the one of the voxel in the middle of its field of view."""
    tiny.mark(folder)
    sampler = tiny.batches(folder, grey_augment_channels=[])
    for number in range(10):
        batch = sampler.batch(number, warp=warp)
        image = (batch["input"][0, 0] * 255).round().long()
        lead, step = sampler.lead, sampler.strides
        at = [slice(c, n - c, s) for c, n, s in zip(lead, image.shape, step, strict=True)]
        known = batch["target"][0] >= 0
        assert known.any()
        assert torch.equal((image[tuple(at)] % 2)[known], batch["target"][0][known])
        if not warp:
            assert known.all()


def test_a_snapshot_shows_each_output_around_the_voxel_that_it_is_of(folder: Path) -> None:
    tiny.mark(folder)
    sampler = tiny.batches(folder, grey_augment_channels=[])
    batch = sampler.batch(0, warp=False)
    shown = sampler.pictures(torch.zeros(1, 2, *batch["target"][0].shape), batch)
    labels, image = shown["gt_classes"], (shown["raw"].data * 255).round().long()
    size_nm = sampler.voxel_size_nm

    middles = [
        [int((start + (first + step / 2) * size) // size) for first in range(0, count, step)]
        for start, count, step, size in zip(
            labels.offset_nm, labels.data.shape, sampler.strides, size_nm, strict=True
        )
    ]

    assert max(sampler.strides) > 1
    of_image = image[np.ix_(*middles)] % 2
    z, y, x = sampler.strides
    assert torch.equal(of_image, labels.data[::z, ::y, ::x].long())


def test_axes_and_centre(folder: Path) -> None:
    """(x, y, z) in the file is (z, y, x) here; labels are in the middle of their image."""
    volume = tiny.dataset(folder).volumes["cube_0"]
    assert volume.labels is not None
    raw, labels = open_source(volume.raw), open_source(volume.labels)
    stored, truth = tiny.cube(0)

    assert raw.box.shape == (12, 42, 44)
    assert (labels.box.offset, labels.box.shape) == ((2, 10, 10), (8, 22, 24))
    np.testing.assert_array_equal(raw.read(raw.box), stored.transpose(2, 1, 0))
    np.testing.assert_array_equal(labels.read(labels.box), truth.transpose(2, 1, 0))


def test_channels_of_a_file(tmp_path: Path) -> None:
    data = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = data
        file["memory"] = data.transpose(3, 0, 1, 2)
    source = partial(Source, path=str(tmp_path / "a.h5"), voxel_size_nm=(1, 1, 1))
    one = open_source(source(array="raw", axes="cxyz", channel=1))
    other = open_source(source(array="memory", axes="zcxy", channel=1))
    both = open_source(source(array="raw", axes="cxyz"))

    expected = data[1].transpose(2, 1, 0)
    np.testing.assert_array_equal(one.read(one.box), expected)
    np.testing.assert_array_equal(other.read(other.box), expected)
    assert both.array.shape == (2, 5, 4, 3)
    with pytest.raises(DataError, match="has 2 channels, numbered from 0; there is no 2"):
        open_source(source(array="raw", axes="cxyz", channel=2))
    with pytest.raises(DataError, match="has 4 axes .*`axes: xyz`"):
        open_source(source(array="raw", axes="xyz"))


def test_an_odd_surplus_is_refused(folder: Path) -> None:
    with h5py.File(folder / "barrier_0.h5", "r+") as file:
        labels = file["lab"][:-1]
        del file["lab"]
        file["lab"] = labels
    with pytest.raises(DataError, match=r"is \[4, 20, 21\] voxels .* must be even"):
        tiny.batches(folder)


def test_labels_that_are_no_classes(folder: Path) -> None:
    with h5py.File(folder / "barrier_0.h5", "r+") as file:
        file["lab"][3, 3, 3] = 2
    with pytest.raises(DataError, match=r"hold \[2\], and network 'tiny' has the classes 0 to 1"):
        tiny.batches(folder)
    assert tiny.batches(folder, n_lab=3).batch(0, warp=False)["target"].max() <= 2


def test_labels_of_both_kinds_are_refused(folder: Path) -> None:
    data = tiny.dataset(folder)
    volumes = data.plain()["volumes"]
    del volumes["cube_1"]["labels"]["objects"]
    data = data.with_(volumes=volumes)
    with pytest.raises(ConfigError, match="labels of 'cube_1' are no `objects: classes`"):
        datasets.has_classes(data)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_place_is_drawn(folder: Path, axis: int) -> None:
    """Also the last one, which the original never draws."""
    raw, _ = tiny.cube(0)
    with h5py.File(folder / "raw_0.h5", "r+") as file:
        file["raw"][...] = np.indices(raw.shape)[2 - axis]
    sampler = tiny.batches(folder, grey_augment_channels=[], flip_data=False)
    firsts = [sampler.batch(i, warp=False)["input"][0, 0, 0, 0, 0] for i in range(60)]
    volume = sampler.train.sampler.volumes[0].labelled
    core = sampler.patch[axis] - 2 * sampler.lead[axis]
    begin = volume.offset[axis] - sampler.lead[axis]

    expected = set(range(begin, begin + volume.shape[axis] - core + 1))
    assert {int((255 * value).round()) for value in firsts} == expected


def test_batches_depend_on_seed_and_number_alone(folder: Path) -> None:
    sampler = tiny.batches(folder, batch_size=2)
    one, again, other = (sampler.batch(n, warp=0.5) for n in (3, 3, 4))

    assert one["input"].shape == (2, 1, 3, 19, 19)
    assert one["target"].shape == (2, 1, 6, 6)
    assert torch.equal(one["input"], again["input"])
    assert not torch.equal(one["input"], other["input"])
    assert not torch.equal(one["input"][0], one["input"][1])


@pytest.mark.parametrize("workers", [0, 3])
def test_any_number_of_workers_gives_the_same_batches(folder: Path, workers: int) -> None:
    sampler = tiny.batches(folder)

    class Task:
        def batch(self, number: int) -> Any:
            return sampler.batch(number, warp=0.5)

    device = torch.device("cpu")
    drawn = list(Prefetcher(Task(), range(6), workers, device))  # type: ignore[arg-type]
    for number, batch in enumerate(drawn):
        assert torch.equal(batch["input"], sampler.batch(number, warp=0.5)["input"])


def test_the_monitored_samples_stay_the_same(folder: Path) -> None:
    sampler = tiny.batches(folder, warp_on=True)
    first, second = (list(sampler.monitor("validation", 3)) for _ in range(2))

    assert len(first) == 3
    assert all(torch.equal(a["input"], b["input"]) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0]["input"], first[1]["input"])
    values = {float(v) for v in (first[0]["input"] * 255).unique()}
    assert all(abs(v - round(v)) < 1e-3 for v in values), "grey values are as they are"
    nothing = tiny.batches(folder, tiny.dataset(folder, validation=[]))
    assert list(nothing.monitor("validation", 3)) == []


def test_one_section_that_no_patch_fits_into_is_not_measured_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, y, x = tiny.VOXEL_SIZE_NM
    section = {"offset": [5 * z, 0, 0], "shape": [z, 42 * y, 44 * x]}
    held_out = tiny.dataset(folder, validation=[{"volume": "cube_1", "roi_nm": section}])
    assert list(tiny.batches(folder, held_out).monitor("validation", 3)) == []
    assert "the validation split is not evaluated: volume 'cube_1': [1, 42, 44] voxels" in (
        capsys.readouterr().out
    )
    with pytest.raises(DataError, match=r"\[1, 42, 44\] voxels of raw are smaller"):
        tiny.batches(folder, tiny.dataset(folder, train=[{"volume": "cube_0", "roi_nm": section}]))


def test_boundaries_of_objects_are_class_1() -> None:
    labels = torch.tensor([[[1, 1, 1, 2, 2, 2, 0, 0]]])
    known = torch.tensor([[[True] * 7 + [False]]])

    grown = class_labels(labels, known, are_classes=False, boundary_steps=1, only_xy=True)
    assert grown.tolist() == [[[0, 0, 1, 1, 0, 1, 1, -1]]]
    plain = class_labels(labels, known, are_classes=False, boundary_steps=0)
    assert plain.tolist() == [[[0, 0, 0, 0, 0, 0, 1, -1]]]
    as_told = class_labels(labels, known, are_classes=True, boundary_steps=0)
    assert as_told.tolist() == [[[1, 1, 1, 2, 2, 2, 0, -1]]]


def test_scores_in_closed_form() -> None:
    p = np.array([[0.8, 0.3, 0.6, 0.5], [0.2, 0.7, 0.4, 0.5]])
    tally = ClassTally(2)
    tally.add(p, np.array([0, 0, 1, -1]), "labels")
    scores = class_scores(tally)

    assert scores["voxels"] == 3
    assert scores["error"] == pytest.approx(2 / 3)
    assert scores["nll"] == pytest.approx(-np.log([0.8, 0.3, 0.4]).mean(), abs=1e-5)
    assert scores["error_of_commonest"] == pytest.approx(1 / 3)
    assert scores["per_class"][0]["recall"] == 0.5
    assert scores["per_class"][1]["intersection_over_union"] == 0
    assert class_scores(tally + tally)["error"] == scores["error"]
    with pytest.raises(DataError, match="holds the label 2"):
        tally.add(p, np.array([2, 0, 0, 0]), "labels")
    stored = (p * 255).astype(np.uint8)
    assert probabilities_of(stored) == pytest.approx(p, abs=1 / 255)


# ---------------------------------------------------------------- the whole way


def test_trained_predicted_and_scored(folder: Path) -> None:
    """Scores on an easy task are far above those of the class frequencies."""
    data = tiny.dataset(folder)
    often = {"history_freq": 50, "snapshot_every": 50, "checkpoint_every": 50}
    net = tiny.network(warp_on=0.3, SGD_params={"LR": 0.05, "momentum": 0.9}, **often)
    settings = training(data, net, 100)
    train.main(arguments(folder, settings))
    config = run_config(device="cpu", precision="fp32", compile=False)
    predict_settings = planning_predict.predict_settings(config, data, net, "cube_2")
    model, store = folder / "model.safetensors", folder / "cube_2" / "prediction.zarr"
    predict.main(
        [
            "--settings",
            as_json(predict_settings),
            "--model",
            str(model),
            "--work",
            str(folder / "work"),
        ]
        + ["--output", str(store)]
    )
    scores = folder / "evaluation.json"
    evaluate_classes.main(
        [
            "--settings",
            as_json(evaluate.class_settings(data, net)),
            "--prediction",
            f"cube_2={store}",
        ]
        + ["--output", str(scores), "--plot", str(folder / "evaluation.png")]
    )

    volume_scores = json.loads(scores.read_text())["volumes"]["cube_2"]
    assert volume_scores["voxels"] == 8 * 22 * 24
    assert volume_scores["error"] < 0.5 * volume_scores["error_of_commonest"]
    assert volume_scores["nll"] < 0.6 * volume_scores["nll_of_shares"]
    assert (folder / "evaluation.png").stat().st_size > 10_000
    work = next((folder / "work").glob("cubes_tiny_*"))
    assert (work / "debug_batch.png").is_file()
    assert sorted((work / "preview").glob("*.png"))


def test_a_resumed_training_ends_with_the_same_result(folder: Path) -> None:
    data, net = tiny.dataset(folder), tiny.network(warp_on=0.5, dropout_rates=0.2)
    whole, parts = folder / "whole", folder / "parts"
    for place, steps in ((whole, (8,)), (parts, (4, 8))):
        place.mkdir()
        for iterations in steps:
            train.main(arguments(place, training(data, net, iterations)))

    one, other = (place / "model.safetensors" for place in (whole, parts))
    assert one.read_bytes() == other.read_bytes()


def test_a_training_begins_from_a_parameter_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, net = tiny.dataset(folder), tiny.network()
    module = built(net, seed=77)
    write_param(folder / "first.param", module, 2)
    settings = training(data, net.with_(SGD_params={"LR": 1e-12, "momentum": 0}), 1)
    train.main(arguments(folder, settings, "--init", str(folder / "first.param")))

    assert "layer 1: [6, 4, 3, 3, 3] from first.param" in capsys.readouterr().out
    trained = built(net)
    from retrace.checkpoints.safetensors import load_model

    load_model(folder / "model.safetensors", trained, of_family(net))
    torch.testing.assert_close(trained.parts[1].weight, module.parts[1].weight)
    assert not torch.allclose(trained.parts[2].weight, module.parts[2].weight)


def test_evaluation_needs_labelled_test_volumes(folder: Path) -> None:
    data = tiny.dataset(folder, test=[])
    with pytest.raises(ConfigError, match="no `test` entry with labels, on which error"):
        compatibility.check_pair(data, tiny.network(), "evaluate")
    with pytest.raises(ConfigError, match="predicts no affinities"):
        compatibility.check_pair(tiny.dataset(folder), tiny.network(), "segment")


LAZY = {"labelled": [0, 1], "absent": [2]}


def test_lazy_labels_and_weights_come_with_their_voxels(folder: Path) -> None:
    """Weights that encode positions stay with their labels through warps and flips."""
    tiny.mark(folder)
    with h5py.File(folder / "raw_0.h5", "r+") as file:
        file["weights"] = file["raw"][...] // 2
    data = tiny.dataset(folder)
    weights = data.volumes["cube_0"].raw.with_(array="weights")
    lazy = {"lazy_labels": LAZY, "inputs": {"example_weights": weights}}
    data = with_volume(data, "cube_0", **lazy)
    inputs = {"example_weights": data.volumes["cube_1"].raw}
    data = with_volume(data, "cube_1", inputs=inputs)
    sampler = tiny.batches(folder, data, n_lab=3, batch_size=2, use_example_weights=True)
    batch = sampler.batch(0, warp=1.0)

    assert batch["input"].shape[1] == 1
    assert batch["labelled"].tolist() == [[1, 1, 0]] * 2
    assert batch["absent"].tolist() == [[0, 0, 1]] * 2
    assert batch["example_weights"].shape == batch["target"].shape
    plain = tiny.batches(folder, n_lab=3, batch_size=2, grey_augment_channels=[])
    for number in range(4):
        batch = sampler.batch(number, warp=1.0)
        place = (batch["example_weights"] * 255).round().long()
        known = batch["target"] >= 0
        assert known.any()
        lead, step = sampler.lead, sampler.strides
        image = (plain.batch(number, warp=1.0)["input"][:, 0] * 255).round().long()
        at = [slice(c, n - c, s) for c, n, s in zip(lead, image.shape[1:], step, strict=True)]
        assert torch.equal(image[(slice(None), *at)] // 2, place)
    (monitored,) = sampler.monitor("validation", 1)
    assert "labelled" not in monitored
    assert monitored["example_weights"].shape == monitored["target"].shape


def test_lazy_labels_are_learned_by_the_oracles_loss(folder: Path) -> None:
    """Training with lazy labels lowers the absent class; batches without them have no flags."""
    assert "labelled" not in tiny.batches(folder).batch(0, warp=False)
    data = with_volume(tiny.dataset(folder), "cube_0", lazy_labels=LAZY)
    settings = training(data, tiny.network(n_lab=3), 12)
    trainer = build.build_trainer(read_train_settings(settings), {}, folder / "work")
    module = trainer.module
    x = trainer.task.batch(0)["input"]
    before = module.as_probabilities(module.raw(x))[:, 2].mean()
    trainer.run()
    after = module.as_probabilities(module.raw(x))[:, 2].mean()

    assert float(after.detach()) < 0.5 * float(before.detach())


@pytest.mark.parametrize(
    ("changes", "lazy", "message"),
    [
        ({"label_prop_thresh": 0.6}, None, "no volume of dataset 'cubes' declares such classes"),
        ({}, {"absent": [2]}, r"name \[2\], and network 'tiny' has the classes 0 to 1"),
        ({"target": "nll_weak"}, {"labelled": [0]}, "only nll does"),
        ({"use_example_weights": True}, None, "add `inputs: .example_weights: .path"),
        ({"use_example_weights": True, "target": "nll_weak"}, None, "needs `target: nll`"),
    ],
)
def test_lazy_labels_that_do_not_fit_are_refused_at_planning(
    folder: Path, changes: dict[str, Any], lazy: Any, message: str
) -> None:
    data = tiny.dataset(folder)
    if lazy:
        data = with_volume(data, "cube_0", lazy_labels=lazy)
    with pytest.raises(ConfigError, match=message):
        compatibility.check_pair(data, tiny.network(**changes), "train")
