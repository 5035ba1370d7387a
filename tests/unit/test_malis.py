"""MALIS against a plain union-find over all pairs, and closed-form cases."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_training as tiny
import train
from retrace.errors import ConfigError
from retrace.losses.malis import malis_loss, malis_weights
from retrace.planning.train_settings import read_train_settings
from retrace.targets.affinities import affinities as affinities_of
from retrace.targets.objects import connected_objects
from retrace.training import build

DIRECT = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def brute_force(case: Case, positive: bool) -> np.ndarray:
    """One pass, straight from the definition: trees are sets of voxels, pairs counted singly."""
    affs, target, known, labels = case
    constrained = np.where((target != positive) & known, 0 if positive else 1, affs)
    edges = []
    for channel, place in product(range(3), np.ndindex(labels.shape)):
        other = tuple(int(p + d) for p, d in zip(place, DIRECT[channel], strict=True))
        if all(0 <= o < s for o, s in zip(other, labels.shape, strict=True)):
            flat = np.ravel_multi_index((channel, *place), affs.shape)
            edges.append((-constrained[(channel, *place)], flat, (channel, *place), place, other))
    tree = {place: {place} for place in np.ndindex(labels.shape)}
    weights = np.zeros(affs.shape)
    for _, _, edge, here, there in sorted(edges):
        one, two = tree[here], tree[there]
        if one is two:
            continue
        for p, q in product(one, two):
            if labels[p] and labels[q] and (labels[p] == labels[q]) == positive:
                weights[edge] += 1
        one |= two
        for place in two:
            tree[place] = one
    weights *= known & (target == positive)
    return weights / (weights.sum() or 1)


def random_case(seed: int, shape: tuple[int, int, int], objects: int) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, objects + 1, shape)
    affs = rng.random((3, *shape)).astype(np.float32)
    target = affinities_of(torch.from_numpy(labels), DIRECT).numpy() > 0
    return affs, target, rng.random((3, *shape)) > 0.2, labels


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    objects=st.integers(0, 4),
)
def test_equals_the_definition(seed: int, shape: tuple[int, int, int], objects: int) -> None:
    case = random_case(seed, shape, objects)
    expected = brute_force(case, False) + brute_force(case, True)
    ours = malis_weights(*case, DIRECT)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_10_malis_one_wrong_edge_between_two_objects_weighs_most() -> None:
    """The one wrong edge that joins two objects has the largest negative weight."""
    labels = np.zeros((1, 5, 9), dtype=np.int64)
    labels[0, :, :4], labels[0, :, 5:] = 1, 2
    target = affinities_of(torch.from_numpy(labels), DIRECT).numpy() > 0
    affs = np.where(target, 0.9, 0.1).astype(np.float32)
    affs[2, 0, 2, 4] = affs[2, 0, 2, 5] = 0.8  # across the boundary, in row 2
    known = np.ones_like(target)
    weights = malis_weights(affs, target, known, labels, DIRECT)
    negative, positive = np.where(target, 0, weights), np.where(target, weights, 0)
    assert negative.sum() == pytest.approx(1) and positive.sum() == pytest.approx(1)
    assert np.unravel_index(negative.argmax(), negative.shape) in {(2, 0, 2, 4), (2, 0, 2, 5)}
    assert negative.max() == pytest.approx(1)


def test_unknown_edges_and_empty_passes_weigh_nothing() -> None:
    affs, target, known, labels = random_case(1, (3, 4, 5), 3)
    assert not malis_weights(affs, target, np.zeros_like(known), labels, DIRECT).any()
    assert not malis_weights(affs, target, known, np.zeros_like(labels), DIRECT).any()
    assert not malis_weights(affs, target, known, labels, DIRECT)[~known].any()


def test_the_loss_and_its_gradient_are_weighted() -> None:
    affs, target, known, labels = random_case(2, (3, 4, 5), 2)
    prediction = torch.from_numpy(affs).requires_grad_()
    truth = torch.from_numpy(target)
    loss = malis_loss(prediction, truth, torch.from_numpy(known), torch.from_numpy(labels), DIRECT)
    loss.backward()
    weights = malis_weights(affs, target, known, labels, DIRECT)
    expected = 2 * weights * (affs - target)
    assert prediction.grad is not None
    np.testing.assert_allclose(prediction.grad.numpy(), expected, atol=1e-6)
    assert float(loss.detach()) == pytest.approx(float((weights * (affs - target) ** 2).sum()))


def test_channels_and_offsets_must_agree() -> None:
    affs, target, known, labels = random_case(3, (2, 2, 2), 1)
    with pytest.raises(ConfigError, match="3 affinities, but 2 offsets"):
        malis_weights(affs, target, known, labels, DIRECT[:2])


# ---------------------------------------------------------------- training

MALIS = tiny.network(
    name="tiny_malis",
    heads=[{"name": "affs", "channels": 3}],
    lsd=None,
    loss={"kind": "malis", "start_iteration": 3},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_volume(tmp_path_factory.mktemp("volume") / "cube.zarr")


def test_the_structured_loss_begins_after_its_iteration(store: Path, tmp_path: Path) -> None:
    trainer = build.build_trainer(
        read_train_settings(tiny.settings(store, 5, network=MALIS)), {}, tmp_path
    )
    module = trainer.module
    task = trainer.task
    assert [task.begins_phase(i) for i in range(1, 7)] == [False, False, False, True, False, False]
    before, after = task.batch(2), task.batch(3)  # the third and the fourth iteration
    assert "affs_weight" in before and "objects" not in before
    assert "affs_weight" not in after
    loss = task.losses(task.predict(module, after), after)["affs"]
    # Each pass has weights that sum to 1, and squared errors are below 1.
    assert 0 < float(loss.detach()) < 2


def test_objects_are_the_connected_parts_of_labels() -> None:
    labels = torch.tensor([[[5, 5, 0, 5], [7, 0, 7, 7]]])
    parts = connected_objects(labels)
    assert ((parts == 0) == (labels == 0)).all()
    assert len(parts.unique()) == 5
    assert len(connected_objects(labels.clamp(min=5)).unique()) == 3


def test_the_optimizer_starts_fresh_and_a_resumed_training_agrees(
    store: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.main(tiny.arguments(whole, tiny.settings(store, 6, network=MALIS)))
    for iterations in (3, 4, 6):
        train.main(tiny.arguments(parts, tiny.settings(store, iterations, network=MALIS)))
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    state = torch.load(sorted(whole.glob("work/*/state_*.pt"))[-1], weights_only=True)
    steps = {float(moments["step"]) for moments in state["optimizer"]["state"].values()}
    assert steps == {3.0}
