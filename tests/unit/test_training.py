"""Batches, the loop, and the files that it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import tiny_training as tiny
import train
from retrace.checkpoints.safetensors import read_metadata
from retrace.errors import ConfigError, DataError, StateError
from retrace.geometry import VoxelBox
from retrace.planning.train_settings import read_train_settings
from retrace.planning.training_folders import snapshots_in
from retrace.targets.affinities import affinities
from retrace.targets.lsds import compute_lsds
from retrace.training import build
from retrace.training import task as training_task
from retrace.training.lsd_family import LsdFamilyTask
from retrace.training.snapshots import KEEP, save_snapshot
from retrace.training.state import state_files
from retrace.training.task import Picture

pytestmark = pytest.mark.usefixtures("tiny_threads")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny.write_volume(tmp_path / "cube.zarr")


def trained(folder: Path, settings: Mapping[str, Any], *more: str) -> bytes:
    folder.mkdir(exist_ok=True)
    train.main(tiny.arguments(folder, dict(settings), *more))
    return (folder / "model.safetensors").read_bytes()


def make_task(store: Path, masks: dict[str, Path] | None = None, **changes: Any) -> LsdFamilyTask:
    settings = tiny.settings(store, 1, network=tiny.network(**changes))
    trainer = build.build_trainer(read_train_settings(settings), masks or {}, store.parent / "none")
    assert isinstance(trainer.task, LsdFamilyTask)
    return trainer.task


def test_loss_falls(store: Path, tmp_path: Path) -> None:
    trained(tmp_path, tiny.settings(store, 160))
    rows = json.loads((tmp_path / "training.json").read_text())["history"]
    assert [row["iteration"] for row in rows] == list(range(1, 161))
    for term in ("lsds", "affs"):
        values = [row[term] for row in rows]
        assert np.mean(values[-40:]) < 0.8 * np.mean(values[:20]), term
    assert rows[0]["loss"] == pytest.approx(rows[0]["lsds"] + rows[0]["affs"])


def test_workers_change_nothing(store: Path, tmp_path: Path) -> None:
    results = {
        trained(tmp_path / f"w{workers}", tiny.settings(store, 6, workers=workers))
        for workers in (0, 1, 2)
    }
    assert len(results) == 1


def test_a_training_in_two_parts_equals_one_in_one(store: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", tiny.settings(store, 7))
    parts = tmp_path / "parts"
    trained(parts, tiny.settings(store, 3))
    assert [p.name for p in state_files(next((parts / "work").iterdir()))] == ["state_000000003.pt"]
    assert trained(parts, tiny.settings(store, 7)) == whole


def digest_of(settings: dict[str, Any]) -> str:
    return build.training_digest(read_train_settings(settings), training_task.WeightFiles())


def test_seed_and_settings_change_the_result(store: Path, tmp_path: Path) -> None:
    base = trained(tmp_path / "a", tiny.settings(store, 2))
    assert trained(tmp_path / "b", tiny.settings(store, 2, seed=8)) != base
    other = tiny.settings(store, 2, network=tiny.network(min_masked=0.9))
    assert digest_of(other) != digest_of(tiny.settings(store, 2))
    longer = tiny.settings(store, 9, network=tiny.network(checkpoint_every=2))
    assert digest_of(longer) == digest_of(tiny.settings(store, 2))


def test_until_an_iteration_already_reached(store: Path, tmp_path: Path) -> None:
    first = trained(tmp_path, tiny.settings(store, 5))
    took = json.loads((tmp_path / "training.json").read_text())["training_seconds"]
    (tmp_path / "model.safetensors").unlink()
    assert trained(tmp_path, tiny.settings(store, 5)) == first
    again = json.loads((tmp_path / "training.json").read_text())
    assert again["iterations_this_run"] == 0
    assert 0 < again["training_seconds"] <= took
    with pytest.raises(StateError, match=r"already at iteration 5, beyond the 4 .*or move \S+ to"):
        trained(tmp_path, tiny.settings(store, 4))
    assert (tmp_path / "model.safetensors").read_bytes() == first
    (tmp_path / "work").rename(tmp_path / "earlier")
    trained(tmp_path, tiny.settings(store, 4))
    again = json.loads((tmp_path / "training.json").read_text())
    assert again["iterations"] == again["iterations_this_run"] == 4


def test_two_states_are_kept_and_a_damaged_one_is_named(store: Path, tmp_path: Path) -> None:
    expected = trained(tmp_path, tiny.settings(store, 9))
    work = next((tmp_path / "work").iterdir())
    assert [p.name for p in state_files(work)] == ["state_000000008.pt", "state_000000009.pt"]
    last = state_files(work)[-1]
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(StateError, match="state_000000009.pt is damaged.*delete it"):
        trained(tmp_path, tiny.settings(store, 9))
    last.unlink()
    assert trained(tmp_path, tiny.settings(store, 9)) == expected


def test_a_state_cannot_run_code(store: Path, tmp_path: Path) -> None:
    trained(tmp_path, tiny.settings(store, 1))
    state = state_files(next((tmp_path / "work").iterdir()))[0]
    torch.save({"format_version": 1, "iteration": Path("/")}, state)
    with pytest.raises(StateError, match="damaged"):
        trained(tmp_path, tiny.settings(store, 2))


def test_a_state_of_another_network_is_refused(store: Path, tmp_path: Path) -> None:
    trained(tmp_path, tiny.settings(store, 1))
    wider = tiny.settings(store, 2, network=tiny.network(fmaps=5))
    name = f"tiny_tiny_mtlsd_{digest_of(wider)}"
    work = next((tmp_path / "work").iterdir())
    work.rename(work.with_name(name))
    with pytest.raises(StateError, match="state of another network"):
        trained(tmp_path, wider)


def test_moments_follow_the_layout_of_their_parameters(tmp_path: Path) -> None:
    from retrace.training.adam import make_optimizer
    from retrace.training.state import TrainingProgress, load_state, save_state

    adam: Any = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8}
    raw = torch.rand(1, 4, 6, 6, 6, generator=torch.Generator().manual_seed(1))

    def layer(layout: torch.memory_format) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Conv3d(4, 6, 3).to(memory_format=layout)  # type: ignore[call-overload]
        return module, make_optimizer(module, **adam)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(raw).square().sum().backward()
        optimizer.step()

    one = layer(torch.channels_last_3d)
    for _ in range(3):
        step(*one)
    path = save_state(tmp_path, *one, TrainingProgress(3, ("a",), torch.zeros(3, 1)))
    other = layer(torch.contiguous_format)
    load_state(path, *other)
    step(*one)
    step(*other)
    assert torch.allclose(one[0].weight, other[0].weight, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_training(store: Path, tmp_path: Path) -> None:
    wild = tiny.network(optimizer={"lr": float("1e30"), "betas": [0.9, 0.99], "eps": 1e-8})
    with pytest.raises(StateError, match=r"no number at iteration .*Lower `optimizer.lr`"):
        trained(tmp_path, tiny.settings(store, 20, network=wild))
    assert not (tmp_path / "model.safetensors").exists()


def test_snapshots_scalars_and_metadata(store: Path, tmp_path: Path) -> None:
    network = tiny.network(snapshot_every=3)
    trained(tmp_path, tiny.settings(store, 4, network=network))
    work = next((tmp_path / "work").iterdir())
    snapshots = snapshots_in(work)
    assert [p.name for p in snapshots] == [f"batch_00000000{n}.zarr" for n in (1, 3, 4)]
    group = zarr.open_group(snapshots[0], mode="r")
    assert set(group.array_keys()) == {
        "raw",
        "labels",
        "labels_mask",
        "gt_lsds",
        "pred_lsds",
        "gt_affs",
        "pred_affs",
    }
    assert group["raw"].shape == (24, 24, 24)
    assert group["pred_affs"].shape == (3, 8, 8, 8)
    assert group["pred_affs"].attrs["offset"] == [80, 80, 80]
    assert group["raw"].attrs["resolution"] == [10, 10, 10]
    assert list((work / "log").glob("events.*"))
    metadata = read_metadata(tmp_path / "model.safetensors")
    assert metadata["iteration"] == 4
    assert metadata["training_digest"] in work.name
    assert metadata["network"] == network
    assert metadata["loss"] > 0
    trained(tmp_path, tiny.settings(store, 7, network=network))
    added = snapshots_in(work)[len(snapshots) :]
    assert [p.name for p in added] == [f"batch_00000000{n}.zarr" for n in (5, 6, 7)]


def picture(value: int) -> dict[str, Picture]:
    return {"raw": Picture(torch.full((2, 3, 4), value, dtype=torch.uint8), (0, 0, 0))}


def test_a_kill_leaves_complete_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest 20 are kept; what is written or deleted is never seen in part."""
    for iteration in range(1, KEEP + 1):
        save_snapshot(tmp_path, iteration, picture(iteration), (9, 9, 9))
    last, remove = KEEP + 1, shutil.rmtree

    def fail(path: Path, *_: Any, **options: Any) -> None:
        if part == "create_volume" or path.name.startswith("batch_000000001"):
            raise KeyboardInterrupt
        remove(path, **options)

    for part in ("create_volume", "shutil.rmtree"):  # while it is written; while one is deleted
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"retrace.training.snapshots.{part}", fail)
            save_snapshot(tmp_path, last, picture(last), (9, 9, 9))
    found = sorted(tmp_path.glob("batch_*.zarr"))
    assert [int(path.stem[-9:]) for path in found] == [*range(2, KEEP + 2)]
    for path in found:
        assert zarr.open_group(path, mode="r")["raw"][0, 0, 0] == int(path.stem[-9:])
    save_snapshot(tmp_path, 40, picture(40), (9, 9, 9))
    assert len(list(tmp_path.iterdir())) == KEEP


def test_init_starts_from_given_weights(store: Path, tmp_path: Path) -> None:
    trained(tmp_path / "a", tiny.settings(store, 3))
    model = str(tmp_path / "a" / "model.safetensors")
    slow = {"lr": 1e-300, "betas": [0.9, 0.99], "eps": 1e-8}
    still = tiny.settings(store, 1, seed=9, network=tiny.network(optimizer=slow))
    trained(tmp_path / "b", still, "--init", model)
    from safetensors.torch import load_file

    first, second = (load_file(tmp_path / n / "model.safetensors") for n in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(DataError, match="does not exist"):
        trained(tmp_path / "c", still, "--init", str(tmp_path / "no.safetensors"))
    wider = tiny.settings(store, 1, network=tiny.network(fmaps=5))
    with pytest.raises(DataError, match="fmaps"):
        trained(tmp_path / "c", wider, "--init", model)


def test_bad_command_lines(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NAME=PATH"):
        trained(tmp_path, tiny.settings(store, 1), "--masks", "cube")
    alone = tiny.settings(store, 1, network=tiny.network(input_channels=10))
    with pytest.raises(ConfigError, match="reads 10 channels with autocontext None"):
        trained(tmp_path, alone)


def test_without_augmentation_a_batch_is_a_plain_crop(store: Path) -> None:
    task = make_task(store, augment=[], grow_boundary=None, min_masked=1.0)
    raw, labels = tiny.blobs()
    batch = task.batch(5)
    shown = ((batch["raw"][0, 0] + 1) * 127.5).round().numpy().astype(np.uint8)
    inner = shown[8:16, 8:16, 8:16]
    windows = np.lib.stride_tricks.sliding_window_view(raw, (8, 8, 8))
    place = np.argwhere((windows == inner).all(axis=(3, 4, 5)))
    assert len(place) == 1
    z, y, x = place[0]
    assert (batch["labels"].numpy() == labels[z : z + 8, y : y + 8, x : x + 8]).all()
    padded = torch.from_numpy(np.pad(labels, 12).astype(np.int64))
    around = padded[z + 6 : z + 26, y + 6 : y + 26, x + 6 : x + 26]
    lsds = compute_lsds(around, (10, 10, 10), 20, 2, VoxelBox((6, 6, 6), (8, 8, 8)))
    assert torch.equal(batch["lsds"], lsds)
    near = around[5:14, 5:14, 5:14]
    assert torch.equal(batch["affs"], affinities(near, task.network.neighborhood)[:, 1:, 1:, 1:])


def test_batches_depend_on_the_iteration_only(store: Path) -> None:
    task = make_task(store)
    first, other, again = task.batch(3), task.batch(4), task.batch(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["raw"], other["raw"])
    assert first["raw"].shape == (1, 1, 24, 24, 24)
    assert first["raw"].min() >= -1 and first["raw"].max() <= 1
    assert first["affs"].shape == first["affs_weight"].shape == (3, 8, 8, 8)
    assert first["lsds"].shape == (10, 8, 8, 8)


def test_growing_the_boundary_adds_background(store: Path) -> None:
    plain, grown = (
        make_task(store, grow_boundary=g) for g in (None, {"steps": 1, "only_xy": False})
    )
    assert (grown.batch(0)["labels"] == 0).sum() > (plain.batch(0)["labels"] == 0).sum()


def test_weights_of_the_descriptor_loss(store: Path) -> None:
    """Label 0 inside the mask, voxels outside it, and voxels kept for validation, per mode."""
    _, labels = tiny.blobs()
    labels[labels == 1] = 0
    group = zarr.open_group(store, mode="a")
    group["labels"][...] = labels
    mask = np.ones(tiny.SHAPE, np.uint8)
    mask[:, :, :12] = 0
    tiny.write_array(store.parent / "m.zarr", "labels_mask", mask)
    hole = [{"offset": [0, 0, 260], "shape": [400, 400, 140]}]
    train_entry = {"volume": "cube", "roi_nm": None, "probability": 1.0, "exclude_nm": hole}
    weights = {}
    for mode in ("labels_mask", "foreground_or_unmasked", "foreground"):
        network = tiny.network(augment=[], grow_boundary=None, lsd_weight=mode, min_masked=0.3)
        dataset = tiny.dataset(store, train=[train_entry])
        settings = tiny.settings(store, 1, network=network, dataset=dataset)
        masks = {"cube": store.parent / "m.zarr"}
        task = build.build_trainer(read_train_settings(settings), masks, store.parent / "none").task
        batches = [task.batch(i) for i in range(30)]
        weights[mode] = [b["lsds_weight"] != 0 for b in batches]
    for index, batch in enumerate(batches):
        inside, object_ = batch["labels_mask"], batch["labels"] != 0
        assert torch.equal(weights["labels_mask"][index], inside)
        assert torch.equal(weights["foreground"][index], object_)
        assert (weights["foreground_or_unmasked"][index] >= object_).all()
    united = torch.stack(weights["foreground_or_unmasked"])
    inside = torch.stack([b["labels_mask"] for b in batches])
    object_ = torch.stack([b["labels"] != 0 for b in batches])
    assert (united & ~inside & ~object_).any()  # unlabelled surroundings count
    assert (~united & ~inside & ~object_).any()  # voxels held out for validation do not
    assert (~united & inside).any()  # nor does background inside the mask


def test_voxels_held_out_for_validation_have_no_weight(store: Path) -> None:
    everything = [{"offset": [0, 0, 200], "shape": [400, 400, 200]}]
    train_entry = {"volume": "cube", "roi_nm": None, "probability": 1.0, "exclude_nm": everything}
    for with_mask in (True, False):
        network = tiny.network(augment=[], grow_boundary=None, balance_with_mask=with_mask)
        dataset = tiny.dataset(store, train=[train_entry])
        settings = tiny.settings(store, 1, network=network, dataset=dataset)
        task = build.build_trainer(read_train_settings(settings), {}, store.parent / "none").task
        held_out_voxels = 0
        for iteration in range(20):
            batch = task.batch(iteration)
            kept = (~batch["labels_mask"]).flip(2).cummin(2).values.flip(2)  # reaches the far end
            held_out_voxels += int(kept.sum())
            assert not batch["labels"][kept].any()
            if with_mask:
                assert not batch["affs_weight"][:, kept].any()
        assert held_out_voxels


def test_bf16_is_a_switch(store: Path, tmp_path: Path) -> None:
    exact = trained(tmp_path / "a", tiny.settings(store, 1))
    rounded = trained(tmp_path / "b", tiny.settings(store, 1, precision="bf16"))
    assert rounded != exact


@pytest.mark.gpu
def test_a_gpu_sees_the_same_batches(store: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here = make_task(store)
    there = LsdFamilyTask(
        here.network, here.sampler, here.boxes, here.voxel_size_nm, here.seed, torch.device("cuda")
    )
    for iteration in range(5):
        one, other = here.batch(iteration), there.batch(iteration)
        assert torch.allclose(one["raw"], other["raw"].cpu(), atol=1e-3)
        assert (one["labels"] == other["labels"].cpu()).float().mean() > 0.99


@pytest.mark.gpu
def test_trains_on_a_gpu(store: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    trained(tmp_path, tiny.settings(store, 5, device="cuda", precision="auto", compile="auto"))
    shutil.rmtree(tmp_path / "work")


def test_the_mean_of_the_weights_is_the_closed_form() -> None:
    from retrace.training.average import WeightAverage

    module = torch.nn.Linear(2, 1)
    average = WeightAverage(module, 0.9)
    expected = module.weight.detach().clone()
    for iteration in range(1, 60):
        with torch.no_grad():
            module.weight.fill_(float(iteration))
        average.update(module, iteration)
        decay = min(0.9, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * iteration
    assert torch.allclose(average.module.weight, expected)
    assert not average.module.weight.requires_grad
