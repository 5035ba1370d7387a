"""Training of the pyramid: schedule, pairs, collapse detection, resuming, runs and lineage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import align
import tiny_seamless as tiny
from built_networks import built
from retrace.alignment.losses import Lambdas
from retrace.alignment.pairs import PairPlan, StackReader, average_valid, is_blank
from retrace.alignment.runs import free_name, lineage, read_runs, run_summary, save_run
from retrace.alignment.schedule import PhaseSchedule
from retrace.alignment.stack_files import Stack
from retrace.alignment.task import SeamlessTask
from retrace.alignment.training import EMPTY, ZERO_FIELD, collapse
from retrace.config.networks import load_network
from retrace.config.seamless_network import OBSERVED
from retrace.displacement import warp
from retrace.errors import ConfigError, DataError, StateError
from tiny_seamless import train as run
from tiny_seamless import true_field

pytestmark = pytest.mark.usefixtures("tiny_threads")


# ---------------------------------------------------------------- schedule


def test_the_schedule_of_five_levels_is_the_readmes() -> None:
    network = tiny.typed({**load_network("seamless").plain(), "height": 5})
    schedule = PhaseSchedule(network)

    phases = [schedule.phase(epoch) for epoch in range(13)]

    assert [p.level for p in phases] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0]
    assert [p.fine_tuning for p in phases[:9]] == [e % 2 == 1 for e in range(9)]
    assert all(p.fine_tuning for p in phases[9:])
    assert [p.lr for p in phases[:3]] == pytest.approx([3e-4, 6e-5, 3e-4])
    assert [p.encoders for p in phases[:4]] == [True, True, False, True]
    assert [p.smooth_factor for p in phases[7:10]] == [0.05, 0.05, 1]
    assert schedule.trace(1) == ["epoch 0: level 4, aligner 4 + encoders, lr 0.0003"]


def test_fine_tuning_trains_everything_at_full_resolution() -> None:
    network = tiny.typed({**load_network("seamless").plain(), "trunc": 0, "fine_tuning": True})
    module = built(network, device="meta")
    schedule = PhaseSchedule(network)
    phase = schedule.phase(0)

    assert (phase.level, phase.lr, phase.smooth_factor) == (0, pytest.approx(6e-5), 1)
    assert len(schedule.trained(module, phase)) == len(list(module.parameters()))
    assert not schedule.begins(1)


def test_a_level_trains_its_own_aligner() -> None:
    network = tiny.typed(load_network("seamless"))
    module = built(network, device="meta")
    schedule = PhaseSchedule(network)

    chosen = schedule.trained(module, schedule.phase(2))

    assert {id(p) for p in chosen} == {id(p) for p in module.level_parameters(6)}


# ---------------------------------------------------------------- pairs


def test_an_epoch_uses_every_pair_of_every_stack_once_per_visit() -> None:
    plan = PairPlan(3, 5, seed=0, visits_per_stack=2, pairs_per_step=2)

    places = [plan.place(i) for i in range(plan.iterations_per_epoch)]

    assert plan.iterations_per_epoch == 3 * 2 * 3
    visited = [(p.stack, pair) for p in places for pair in range(p.first, p.end)]
    assert sorted(visited) == sorted([(s, pair) for s in range(3) for pair in range(5)] * 2)
    later = [plan.place(i + plan.iterations_per_epoch).stack for i in range(len(places))]
    assert later != [p.stack for p in places]


def task(stack: Stack | None = None, **changes: Any) -> SeamlessTask:
    network = tiny.typed(tiny.network(**changes))
    steps = {"visits_per_stack": network.visits_per_stack, "pairs_per_step": network.pairs_per_step}
    plan = PairPlan(1, 3, 0, **steps)
    reader = StackReader([stack or tiny.stack()], network.contrast.equalised_radius_px)
    seamless = SeamlessTask(
        network,
        reader,
        plan,
        PhaseSchedule(network),
        0,
        torch.device("cpu"),
        (40, 8, 8),
        Lambdas.of(network),
    )
    seamless.enter(seamless.schedule.phase(9))
    return seamless


def test_a_batch_depends_on_its_number_alone() -> None:
    first, again = task(), task()
    other = first.batch(1)

    torch.testing.assert_close(first.batch(0), again.batch(0))
    assert not torch.equal(other["source_image"], first.batch(3)["source_image"])


def test_augmentation_degrades_the_input_and_not_the_loss_images() -> None:
    spoilt, plain = task(augment={"input": True}), task(augment={"input": False})

    a, b = spoilt.batch(0), plain.batch(0)

    torch.testing.assert_close(a["source_image"], b["source_image"])
    assert not torch.equal(a["source_input"], b["source_input"])


def test_a_fold_is_supervised_by_its_own_field() -> None:
    seamless = task(fold_probability=1.0, fold_radius_px=[6, 8])
    batch = seamless.batch(0)
    outputs = {"field": torch.zeros(2, 2, 32, 32)}

    terms = seamless.losses(outputs, batch)

    assert float(terms["fold"]) > 0
    assert float(terms["similarity"]) == 0
    assert float(terms["smoothness"]) == 0
    assert float(terms["known"]) == 0


@pytest.mark.parametrize("visit", range(4))
def test_the_known_displacement_aligns_a_section_with_itself_however_turned(visit: int) -> None:
    seamless = task(self_pairs=1.0, contrast={"method": "none"})
    batch = seamless.batch(visit)
    source, target = batch["source_image"], batch["target_image"]
    inner = (..., slice(8, -8), slice(8, -8))

    moved = warp(source, true_field(batch))

    left, before = ((image - target)[inner].abs().mean() for image in (moved, source))
    assert float(left) < 0.4 * float(before)


def test_the_true_field_has_no_error_and_unknown_pixels_do_not_count() -> None:
    seamless = task()
    batch = seamless.batch(0)

    def term(field: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> float:
        return float(seamless.losses({"field": field}, targets)["known"])

    still = torch.zeros_like(batch["source_moved"])
    assert term(still, batch) > 1
    assert term(true_field(batch), batch) < 0.15
    assert term(still, batch | {"known": torch.zeros_like(batch["known"])}) == 0


def test_unmodified_sections_have_known_displacements_only_in_self_pairs() -> None:
    stack = tiny.stack()
    unknown = Stack(stack.name, stack.images, stack.masks, None)

    assert not task(unknown, self_pairs=0.0).batch(0)["known"].any()
    assert task(unknown, self_pairs=1.0).batch(0)["known"].all()
    assert task(self_pairs=0.0).batch(0)["known"].all()


def test_both_orientations_and_their_consensus_count() -> None:
    seamless = task(lambda6=1.0)
    module = built(tiny.network(zero_start=False), seed=1)
    batch = seamless.batch(0)

    terms = seamless.losses(seamless.predict(module, batch), batch)

    assert list(terms) == ["similarity", "smoothness", "known", "consensus", *OBSERVED]
    assert float(terms["consensus"]) > 0


def test_an_empty_section_gives_no_loss_and_no_nan() -> None:
    seamless = task()
    batch = seamless.batch(0)
    batch["source_valid"] = torch.zeros_like(batch["source_valid"])
    field = torch.zeros(2, 2, 32, 32, requires_grad=True)

    terms = seamless.losses({"field": field}, batch)

    assert float(terms["similarity"]) == 0
    assert float(terms["valid"]) == 0


def test_constant_sections_are_blank() -> None:
    images = torch.stack([torch.full((1, 8, 8), 0.5), torch.rand(1, 8, 8)])

    assert is_blank(images, torch.ones_like(images), 0.001).tolist() == [True, False]


def test_downsampling_leaves_missing_pixels_out_and_can_keep_the_contrast() -> None:
    image = torch.rand(1, 1, 32, 32)
    valid = torch.ones_like(image)
    image[..., :5], valid[..., :5] = 0, 0

    plain, kept = average_valid(image, valid, 2, False), average_valid(image, valid, 2, True)

    assert float(plain[..., 0].max()) == 0
    torch.testing.assert_close(plain[0, 0, 0, 1], image[0, 0, :4, 5:8].mean(), atol=1e-6, rtol=0)
    assert float(kept[..., 1:].std()) == pytest.approx(float(image[..., 5:].std()), rel=0.1)


# ---------------------------------------------------------------- guard


def means(**changes: float) -> dict[str, float]:
    return {"similarity": 0.1, "field_px": 2, "moved_px": 3, "valid": 0.9, "lambda1": 2} | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"field_px": 0.01}, ZERO_FIELD),
        ({"valid": 0.1}, EMPTY),
        ({"similarity": 0.0}, EMPTY),
    ],
)
def test_each_kind_of_collapse_has_its_message(
    changes: dict[str, float], expected: str | None
) -> None:
    settings = {"field_fraction": 0.1, "valid_fraction": 0.5}

    assert collapse(means(**changes), **settings) == expected


# ---------------------------------------------------------------- the program


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    return tiny.write_stacks(tmp_path / "stacks.h5")


def test_training_stopped_and_resumed_gives_the_same_weights(tmp_path: Path, stacks: Path) -> None:
    whole = run(tmp_path, stacks, tiny.training(iterations=7), name="whole")
    shutil.rmtree(tmp_path / "work")
    shutil.rmtree(tmp_path / "runs")
    run(tmp_path, stacks, tiny.training(iterations=4), name="part")

    again = run(tmp_path, stacks, tiny.training(iterations=7), name="again")

    torch.testing.assert_close(load_file(again), load_file(whole), rtol=0, atol=0)
    history = json.loads((tmp_path / "again/training.json").read_text())
    assert history["iterations_this_run"] == 3
    assert [row["iteration"] for row in history["history"]] == list(range(1, 8))


def test_a_training_leaves_pictures_and_scalars(tmp_path: Path, stacks: Path) -> None:
    run(tmp_path, stacks, tiny.training(iterations=3))

    (work,) = (tmp_path / "work").iterdir()
    names = sorted(p.name for p in (work / "pictures").iterdir())
    starts = [f"00000000{iteration}_level1" for iteration in (1, 3)]
    assert names == [f"{start}_{end}" for start in starts for end in ("field.png", "stack.gif")]
    assert list((work / "log").glob("events*"))


def test_epochs_and_iterations_of_the_configuration(tmp_path: Path, stacks: Path) -> None:
    run(tmp_path, stacks, tiny.training(epochs=1))

    history = json.loads((tmp_path / "a/training.json").read_text())
    assert history["iterations"] == history["iterations_per_epoch"] == 2 * 2 * 2


def test_a_run_is_never_overwritten(tmp_path: Path, stacks: Path) -> None:
    run(tmp_path, stacks, tiny.training(iterations=1, run="mine"))
    kept = (tmp_path / "runs/mine/archive.safetensors").read_bytes()

    with pytest.raises(ConfigError, match=r"`run: mine` is the name of another training \(digest"):
        run(tmp_path, stacks, tiny.training(iterations=1, run="mine", lr=0.5))
    longer = tiny.training(iterations=2, run="mine")
    with pytest.raises(ConfigError, match=r"last iteration is 1, and 2 is requested.*run=mine_2"):
        run(tmp_path, stacks, longer)

    assert (tmp_path / "runs/mine/archive.safetensors").read_bytes() == kept


def test_a_repeated_training_keeps_its_run_and_a_longer_one_gets_its_own(
    tmp_path: Path, stacks: Path
) -> None:
    run(tmp_path, stacks, tiny.training(iterations=1, run="mine"), name="first")
    kept = {path: path.read_bytes() for path in (tmp_path / "runs/mine").iterdir()}
    shutil.rmtree(tmp_path / "work")
    run(tmp_path, stacks, tiny.training(iterations=1, run="mine"), name="again")
    assert kept == {path: path.read_bytes() for path in (tmp_path / "runs/mine").iterdir()}

    for iterations in (1, 2):
        run(tmp_path, stacks, tiny.training(iterations=iterations))
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert [name.rpartition("_")[2] for name in names if name != "mine"] == ["1", "2"]


def test_other_weights_of_the_same_training_get_a_number(tmp_path: Path) -> None:
    """As after the same training on a GPU, which rounds sums in another order."""
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    for weights, expected in (("a", "mine"), ("a", "mine"), ("b", "mine_2"), ("c", "mine_3")):
        name = free_name(tmp_path / "runs", "mine", weights)
        assert name == expected
        save_run(tmp_path / "runs", name, model, {"weights": weights})
    (tmp_path / "runs/mine/archive.safetensors").unlink()
    assert free_name(tmp_path / "runs", "mine", "d") == "mine"


def test_the_lineage_leads_from_a_fine_tuned_run_to_its_origin(
    tmp_path: Path, stacks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, stacks, tiny.training(iterations=1, run="first"))
    tuned = tiny.training(iterations=1, run="tuned", trunc=0, fine_tuning=True, lambda1=0.5)
    run(tmp_path, stacks, tuned, f"--init={first}", name="b")

    names = [record["name"] for record in lineage(tmp_path / "runs", "tuned")]
    capsys.readouterr()
    align.main(["lineage", "--runs", str(tmp_path / "runs"), "tuned"])
    printed = capsys.readouterr().out

    assert names == ["tuned", "first"]
    assert "from first" in printed
    assert "lambda1=0.5" in printed
    assert "from scratch" in printed
    known = read_runs(tmp_path / "runs")
    assert run_summary(known["first"], known).startswith("first: tiny_tiny, from scratch")
    with pytest.raises(ConfigError, match="no run 'fist'; did you mean 'first'"):
        list(lineage(tmp_path / "runs", "fist"))


def test_an_archive_of_another_height_reports_what_was_not_loaded(
    tmp_path: Path, stacks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, stacks, tiny.training(iterations=1))
    run(tmp_path, stacks, tiny.training(iterations=1, height=3), f"--init={first}", name="b")

    printed = capsys.readouterr().out
    assert "warning: aligners.2.0.weight" in printed
    assert "encoders.2.0.weight" in printed


def test_the_zero_field_stops_a_training_or_lowers_lambda1(
    tmp_path: Path, stacks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = {"patience": 2, "field_fraction": 0.9, "valid_fraction": 0.0}
    settings = tiny.training(iterations=4, lr=1e-9, collapse={**guard, "action": "stop"})
    with pytest.raises(StateError, match=r"iteration 2: the network predicts an almost zero field"):
        run(tmp_path, stacks, settings)

    settings = tiny.training(iterations=4, lr=1e-9, collapse={**guard, "action": "lower"})
    run(tmp_path, stacks, settings)

    assert "lambda1 0.03 -> 0.015" in capsys.readouterr().out
    history = json.loads((tmp_path / "a/training.json").read_text())
    assert history["history"][-1]["lambda1"] == pytest.approx(0.0075)


def test_stacks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stacks = tiny.write_stacks(tmp_path / "small.h5", 1, 2, 24)
    with pytest.raises(DataError, match=r"trains on 32 \(`crop`\)"):
        run(tmp_path, stacks, tiny.training(iterations=1))
    with pytest.raises(DataError, match="multiples of 4"):
        run(tmp_path, stacks, tiny.training(iterations=1, crop=22, height=3))


def test_learning_reduces_the_loss(tmp_path: Path, stacks: Path) -> None:
    run(tmp_path, stacks, tiny.training(iterations=15, lr=0.01, trunc=0, self_pairs=1.0))

    rows = json.loads((tmp_path / "a/training.json").read_text())["history"]
    similarity = np.array([row["similarity"] for row in rows])
    assert np.isfinite(similarity).all()
    assert rows[-1]["field_px"] > 0
