"""ZNN's training through the common loop: patches, weights, curves, resuming, seeding, h5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch

import predict
import tiny_znn as tiny
import znn
from retrace.errors import DataError
from retrace.planning import predict as planning_predict
from retrace.settings_model import as_json
from retrace.storage.volumes import open_volume
from retrace.training.state import state_files
from retrace.training.znn_optimizer import ZnnOptimizer
from run_config import run_config
from znn_trainings import run, task_of

pytestmark = pytest.mark.usefixtures("tiny_threads")


def test_loss_falls_and_the_curve_is_znns(folder: Path) -> None:
    run(folder, 60)
    record = json.loads((folder / "training.json").read_text())
    rows, curve = record["history"], record["learning_curve"]

    assert np.mean([r["err"] for r in rows[-20:]]) < 0.8 * np.mean([r["err"] for r in rows[:10]])
    assert all(row["loss"] == row["err"] for row in rows)
    assert curve["train"]["it"] == list(range(2, 61, 2))
    assert curve["train"]["err"][0] == pytest.approx(np.mean([r["err"] for r in rows[:2]]))
    assert curve["test"]["it"] == list(range(4, 61, 4))
    assert curve["test"]["err"][-1] < curve["test"]["err"][0]
    measured = record["validation"]["rows"]
    assert [row["iteration"] for row in measured] == [32, 60]
    assert measured[1]["loss"] == measured[1]["err"] < measured[0]["err"]


def test_a_stopped_training_resumes_to_the_same_weights_and_curve(folder: Path) -> None:
    whole, parts = run(folder / "whole", 12), run(folder / "parts", 6)
    run(parts, 12)

    weights = [(f / "model.safetensors").read_bytes() for f in (whole, parts)]
    assert weights[0] == weights[1]
    one, other = (json.loads((f / "training.json").read_text()) for f in (whole, parts))
    assert one["learning_curve"] == other["learning_curve"]


def test_a_strided_convolution_trains_and_its_loss_falls(folder: Path) -> None:
    strided = {"conv": "conv1", "size": [1, 4, 4], "stride": [1, 2, 2], "to": "n1", "maps": 4}
    layers = [strided, {**tiny.LAYERS[2], "from": "n1"}]
    run(folder, 30, layers=layers)
    rows = json.loads((folder / "training.json").read_text())["history"]

    assert np.mean([r["err"] for r in rows[-10:]]) < 0.9 * np.mean([r["err"] for r in rows[:10]])


def test_dropout_does_not_depend_on_interruptions(folder: Path) -> None:
    dropping = [*tiny.LAYERS[:2], {"dropout": "drop", "to": "n3"}, tiny.LAYERS[2]]
    whole, parts = run(folder / "whole", 6, layers=dropping), folder / "parts"
    run(parts, 3, layers=dropping)
    torch.rand(5)
    run(parts, 6, layers=dropping)

    one, other = ((f / "model.safetensors").read_bytes() for f in (whole, parts))
    assert one == other


def test_tests_after_the_last_saved_state_run_once(folder: Path) -> None:
    run(folder, 8)
    (work,) = (folder / "work").iterdir()
    state_files(work)[-1].unlink()
    run(folder, 12)
    curve = json.loads((folder / "training.json").read_text())["learning_curve"]

    assert curve["test"]["it"] == [4, 8, 12]


def test_patches_are_the_windows_of_mirrored_images(folder: Path) -> None:
    task = task_of(folder, parameters={"is_data_aug": False})
    raw, labels = tiny.cells()
    raw = raw.astype(float)
    raw = (raw - raw.mean((1, 2), keepdims=True)) / raw.std((1, 2), keepdims=True)
    lead, tail = np.array(task.module.context) // 2, (np.array(task.module.context) + 1) // 2
    pad = [(int(a), int(b)) for a, b in zip(lead, tail, strict=True)]
    padded = np.pad(raw[:4], pad, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, task.batch(0)["input"].shape[2:])
    drawn = set()
    for iteration in range(8):
        batch = task.batch(iteration)
        window = batch["input"][0, 0].numpy()
        near = np.abs(windows - window).max(axis=(3, 4, 5)) < 1e-5
        ((z, y, x),) = np.argwhere(near)
        part = labels[z : z + 1, y : y + 12, x : x + 12] > 0
        assert torch.equal(batch["target"][0], torch.from_numpy(part).float())
        assert torch.equal(batch["target"].sum(0), torch.ones(1, 12, 12))
        drawn.add((int(z), int(y), int(x)))
    assert len(drawn) > 5


def test_augmented_patches_turn_image_and_target_together(folder: Path) -> None:
    plain = task_of(folder, parameters={"is_data_aug": False})
    turned = task_of(folder)
    forms = set()
    for iteration in range(20):
        one, other = plain.batch(iteration), turned.batch(iteration)
        if torch.equal(one["target"], other["target"]):
            continue
        forms.add(iteration)
        for target, image in ((one["target"], one["input"]), (other["target"], other["input"])):
            inner = image[0, :, :, 4:16, 4:16]  # a context of 8
            assert (inner[0][target[0] > 0]).mean() > (inner[0][target[0] == 0]).mean()
    assert len(forms) > 8


@pytest.mark.parametrize("mode", ["none", "global", "patch"])
def test_rebalancing_weights(folder: Path, mode: str) -> None:
    task = task_of(folder, parameters={"rebalance_mode": mode})
    batch = task.batch(0)
    inside, weight = batch["target"][0] > 0, batch["weight"]
    labels = tiny.cells()[1][:4] if mode == "global" else inside.numpy()
    share = (labels > 0).mean()
    expected = {
        "none": (1.0, 1.0),
        "global": (0.5 / share, 0.5 / (1 - share)),
        "patch": (1 - share, share),
    }[mode]

    assert torch.equal(weight[0], weight[1])
    values = torch.where(inside, *(torch.tensor(v, dtype=torch.float32) for v in expected))
    torch.testing.assert_close(weight[0], values)


def two_labels(folder: Path, **more: Any) -> dict[str, Any]:
    """The cells, and for the second output a disc on each section."""
    y, x = np.ogrid[:40, :44]
    disc = np.repeat(((y - 20) ** 2 + (x - 22) ** 2 < 150)[None], 6, 0).astype(np.uint32)
    tifffile.imwrite(folder / "disc.tif", disc, photometric="minisblack")
    volume = {"raw": {"path": "raw.tif"}, "labels": {"path": "labels.tif"}}
    second = {"outputs": {"second": {"path": "disc.tif"}}, **more}
    return tiny.dataset(folder, volumes={"stack": volume | second})


def test_each_output_learns_its_own_labels(folder: Path) -> None:
    data = two_labels(folder)
    task = task_of(folder, data, layers=tiny.TWO_OUTPUTS, parameters={"rebalance_mode": "patch"})
    one = task_of(folder, parameters={"rebalance_mode": "patch"})
    batch, alone = task.batch(3), one.batch(3)

    for key in ("target", "mask", "weight"):
        assert torch.equal(batch[key][:2], alone[key])
    assert not torch.equal(batch["target"][2], batch["target"][0])
    inside = batch["target"][2] > 0
    share = float(inside.float().mean())
    assert 0 < share < 1
    assert float(batch["weight"][2][inside][0]) == pytest.approx(1 - share)

    outputs = task.predict(task.module, batch)
    assert list(outputs) == ["boundary_output", "boundary_second"]
    loss = task.losses(outputs, batch)["err"]
    parts = [
        -(torch.log_softmax(y[0], 0) * batch["target"][place]).sum()
        for y, place in zip(outputs.values(), (slice(0, 2), slice(2, 4)), strict=True)
    ]
    assert float(loss.detach()) == pytest.approx(float(sum(parts).detach()) / (4 * 144))
    loss.backward()
    weight = task.module.convolutions["conv3"].weight
    q = torch.softmax(outputs["boundary_second"][0].detach(), 0)
    sent = (q - batch["target"][2:]) * batch["weight"][2:] / 144
    expected = torch.autograd.grad(
        (task.predict(task.module, batch)["boundary_second"][0] * sent).sum(), weight
    )[0]
    torch.testing.assert_close(weight.grad, expected)


def test_each_output_has_its_own_mask(folder: Path) -> None:
    known = np.ones(tiny.SHAPE, np.uint8)
    known[:, :, 22:] = 0
    tifffile.imwrite(folder / "known.tif", known, photometric="minisblack")
    data = two_labels(folder, outputs_mask={"second": {"path": "known.tif"}})
    task = task_of(folder, data, layers=tiny.TWO_OUTPUTS, parameters={"is_data_aug": False})
    masks = [task.batch(number)["mask"] for number in range(8)]

    assert all(bool((mask[:2] == 1).all()) for mask in masks)
    assert 0.1 < float(torch.stack(masks)[:, 2:].mean()) < 0.9


def test_two_outputs_are_trained_predicted_and_kept_in_an_h5(folder: Path) -> None:
    data = two_labels(folder)
    net = tiny.network(data, layers=tiny.TWO_OUTPUTS)
    run(folder, 30, data=data, layers=tiny.TWO_OUTPUTS)
    record = json.loads((folder / "training.json").read_text())

    rows = record["history"]
    assert np.mean([r["err"] for r in rows[-8:]]) < 0.9 * np.mean([r["err"] for r in rows[:4]])
    assert record["learning_curve"]["test"]["it"] == list(range(4, 31, 4))

    znn.main(
        ["network", "--model", "model.safetensors", "--history", "training.json"]
        + ["--output", "net.h5"]
    )
    model_json = as_json({"dataset": "cells", "network": net})
    znn.main(["model", "--settings", model_json, "--h5", "net.h5", "--output", "again.safetensors"])
    config = run_config(device="cpu", prediction_dtype="float32", output_prefix="out/net")
    settings = planning_predict.predict_settings(config, data, net, "stack")
    for model, store in (("model", "one.zarr"), ("again", "other.zarr")):
        options = {"--settings": as_json(settings), "--model": f"{model}.safetensors"}
        options |= {"--work": "work", "--output": store}
        predict.main([word for pair in options.items() for word in pair])
    outputs = as_json({"prefix": "out/net", "volume": "stack", "heads": net.heads})
    znn.main(["outputs", "--settings", outputs, "--prediction", "one.zarr", "--output", "out.json"])
    for node in ("output", "second"):
        first, second = (open_volume(f"{s}.zarr", f"boundary_{node}") for s in ("one", "other"))
        values = first.read(first.box)
        assert values.shape == (2, 2, 40, 44)
        np.testing.assert_array_equal(values, second.read(second.box))
        with h5py.File(f"out/net_sample_stack_{node}.h5") as file:
            np.testing.assert_array_equal(file["main"][()], values)
    assert len(json.loads((folder / "out.json").read_text())["files"]) == 6


CLASSES = {
    "layers": [*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 3}],
    "parameters": {"out_type": "semantic", "rebalance_mode": "global"},
}
"""Three classes: 0 on membranes, 1 and 2 in every other cell."""


def class_dataset(folder: Path, **more: Any) -> dict[str, Any]:
    """The cells in classes: of their numbers 1 to 8, the odd ones are 1, the even ones 2."""
    groups = [[0], [1, 3, 5, 7], [2, 4, 6, 8]]
    labels = {"path": "labels.tif", "objects": "classes", "class_values": groups, **more}
    return tiny.dataset(folder, volumes={"stack": {"raw": {"path": "raw.tif"}, "labels": labels}})


@pytest.mark.parametrize("mode", ["global", "patch"])
def test_each_class_has_a_map_and_all_classes_weigh_the_same(folder: Path, mode: str) -> None:
    parameters = CLASSES["parameters"] | {"rebalance_mode": mode}
    task = task_of(folder, class_dataset(folder), **CLASSES | {"parameters": parameters})
    batch = task.batch(1)
    target, weight = batch["target"], batch["weight"]

    torch.testing.assert_close(target.sum(0), torch.ones_like(target[0]))
    numbers = tiny.cells()[1][:4]
    classes = np.where(numbers == 0, 0, 2 - numbers % 2) if mode == "global" else target.argmax(0)
    voxels = np.array([(np.asarray(classes) == number).sum() for number in range(3)])
    present = voxels[voxels > 0]
    expected = voxels.sum() / (len(present) * voxels)
    if mode == "patch":
        expected = 1 / voxels / (1 / present).sum()
    for number in np.unique(target.argmax(0)):
        class_weights = weight[:, target[number] > 0]
        np.testing.assert_allclose(class_weights.numpy(), expected[number], rtol=1e-6)


def test_classes_are_trained_and_others_refused(folder: Path) -> None:
    run(folder, 40, data=class_dataset(folder), **CLASSES)
    rows = json.loads((folder / "training.json").read_text())["history"]

    assert np.mean([r["err"] for r in rows[-10:]]) < 0.9 * np.mean([r["err"] for r in rows[:5]])
    few = CLASSES | {"layers": [*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 2}]}
    with pytest.raises(DataError, match=r"hold \[2\], and network 'tiny' has the classes 0 to 1"):
        task_of(folder, class_dataset(folder), **few)


def test_affinities_connect_to_the_lower_neighbour_and_are_balanced_per_channel(
    folder: Path,
) -> None:
    task = task_of(
        folder,
        layers=[*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 3, "function": "forward_logistics"}],
        parameters={"out_type": "affinity", "rebalance_mode": "patch", "is_data_aug": False},
    )
    batch = task.batch(1)
    target, weight = batch["target"], batch["weight"]

    assert target.shape == (3, 1, 12, 12)
    inside = target[0, 0] > 0  # z: objects are columns
    assert bool(inside.any())
    # y and x: both voxels inside the same object.
    assert not (target[1, 0][~inside] > 0).any()
    below = target[1, 0, 1:] > 0
    assert bool((inside[1:] & inside[:-1])[below].all())
    for channel in range(3):
        share = float(target[channel].mean())
        positive = weight[channel][target[channel] > 0]
        torch.testing.assert_close(positive, torch.full_like(positive, 1 - share))


@pytest.mark.parametrize("norm", ["none", "frac", "num", "pair"])
def test_malis_trains_and_is_watched(folder: Path, norm: str) -> None:
    run(
        folder,
        4,
        layers=[*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 3, "function": "forward_logistics"}],
        parameters={
            "out_type": "affinity",
            "is_malis": True,
            "malis_norm_type": norm,
            "is_constrained_malis": norm == "num",
            "eta": 1e-4,
        },
    )
    record = json.loads((folder / "training.json").read_text())

    assert record["terms"] == ["err", "cls", "re", "mc", "me"]
    assert set(record["learning_curve"]["train"]) == {"it", "err", "cls", "re", "mc", "me"}
    assert all(0 <= row["re"] <= 1 and row["loss"] == row["err"] for row in record["history"])


def test_masks_take_voxels_out_of_cost_and_gradient(folder: Path) -> None:
    task = task_of(folder)
    batch = task.batch(0)
    batch["mask"] = batch["mask"].clone()
    batch["mask"][..., 6:] = 0
    output = torch.zeros(1, 2, 1, 12, 12, requires_grad=True)
    losses = task.losses({"boundary": output}, batch)
    losses["err"].backward()

    assert float(losses["err"]) == pytest.approx(np.log(2) / 2)
    assert output.grad is not None
    assert not output.grad[..., 6:].any()
    assert bool(output.grad[..., :6].all())


def test_eta_falls_in_steps_and_momentum_and_decay_follow_znn(folder: Path) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    holder = torch.nn.ParameterList([weight])
    optimizer = ZnnOptimizer(
        holder, eta=0.1, momentum=0.5, weight_decay=0.01, anneal_factor=0.1, anneal_every=2
    )
    w, v = 2.0, 0.0
    for step in range(5):
        weight.grad = torch.tensor([1.0 + step])
        optimizer.step()
        eta = 0.1 * 0.1 ** (step // 2)
        v = 0.5 * v - eta * 0.01 * w - eta * (1 + step)
        w += v
        assert float(weight) == pytest.approx(w, rel=1e-6)


def test_patches_larger_than_the_stack_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train_outsz \[1, 41, 41\] .* larger than the labels"):
        task_of(folder, parameters={"train_outsz": [1, 41, 41]})
