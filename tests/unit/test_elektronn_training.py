"""Training ELEKTRONN's networks: schedules, actions, commands, resuming, pre-training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_digits as tiny
import train
from built_networks import built
from retrace.config import datasets, networks
from retrace.config.elektronn_network import CosineSchedule, ScheduledAction, ScheduledValues
from retrace.errors import ConfigError, DataError
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training import task as training_task
from retrace.training.control import Command, ControlFile
from retrace.training.elektronn_family import ElektronnTask
from retrace.training.elektronn_schedule import (
    LEAD,
    RateChange,
    RateSchedule,
    RateValues,
    declared_schedule,
    has_stalled,
)
from tiny_training import arguments, training

pytestmark = pytest.mark.usefixtures("tiny_threads")


def schedule(**changes: Any) -> RateSchedule:
    settings: dict[str, Any] = {
        "lr": 0.005,
        "momentum": 0.9,
        "warp_on": True,
        "lr_decay": 0.993,
    }
    return declared_schedule(**{**settings, **changes})


def test_the_rate_decays_first_after_the_first_iteration() -> None:
    plan = schedule()

    assert plan.lr(0) == 0.005
    assert plan.lr(1) == pytest.approx(0.004965)
    assert plan.lr(1000) == plan.lr(1)
    assert plan.lr(2001) == pytest.approx(0.005 * 0.993**3)


def test_schedule_and_actions_change_settings_and_decay_continues() -> None:
    values = ScheduledValues(warp_on=False, momentum=0.5)
    action = ScheduledAction(at_iteration=1500, set=values)
    plan = schedule(lr_schedule=[(500, 0.1), (2000, 0.01)], actions=[action])

    assert plan.lr(499) == pytest.approx(0.004965)
    assert plan.lr(500) == plan.lr(1000) == 0.1
    assert plan.lr(1001) == pytest.approx(0.0993)
    assert plan.lr(2000) == 0.01
    assert plan.lr(2001) == pytest.approx(0.00993)
    assert (plan.value("warp_on", 1499), plan.value("warp_on", 1500)) == (True, False)
    assert plan.value("momentum", 1500) == 0.5


def test_the_cosine_rises_and_falls() -> None:
    plan = schedule(cosine=CosineSchedule(warmup=10, until=110), lr_decay=1)
    rates = [plan.lr(n) for n in range(120)]

    assert rates[0] == pytest.approx(0.0005)
    assert max(rates) == rates[10] == 0.005
    assert rates[60] == pytest.approx(0.0025)
    assert rates[110] == rates[119] == 0


def test_commands_survive_a_restart_and_decisions_are_made_again(tmp_path: Path) -> None:
    plan = schedule()
    plan.resume(tmp_path, 0)
    plan.add(RateChange(40, RateValues(lr=0.5), "order", 8))
    plan.add(RateChange(60, RateValues(lr=0.7), "plateau 0", 28))
    again = schedule()
    again.resume(tmp_path, 20)

    assert again.lr(40) == 0.5
    assert not again.has_fired("plateau 0")


def test_a_plateau_has_no_improvement() -> None:
    assert not has_stalled([3, 2, 1], 2, 0)
    assert not has_stalled([3, 2], 2, 0)
    assert has_stalled([3, 1, 1, 2], 2, 0)
    assert has_stalled([3, 2, 1.95, 1.96], 2, 0.1)


def test_control_reads_lines_and_answers_unknown_words(tmp_path: Path) -> None:
    control = ControlFile(tmp_path, {"lr": "learning rate"})
    (tmp_path / "control").write_text("lr 0.002\nstp\n\nsave\n")

    assert list(control.commands()) == [Command("lr", "0.002"), Command("save", "")]
    assert list(control.commands()) == []
    assert "did you mean 'stop'" in (tmp_path / "control.log").read_text()


def run(folder: Path, data: dict[str, Any], net: dict[str, Any], iterations: int) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    train.main(arguments(folder, training(data, net, iterations)))
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


RECIPES: dict[str, dict[str, Any]] = {
    "SGD": {"weight_decay": 0.001},
    "RPROP": {},
    "CG": {},
    "LBFGS": {},
    "Adam": {"dropout_rates": [0, 0.5], "average": 0.9},
}


@pytest.mark.parametrize("optimizer", RECIPES)
def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    data = tiny.dataset(tmp_path)
    actions = [
        {"at_iteration": 5, "set": {"warp_on": False, "lr": 0.01}},
        {"on_plateau": {"of": "train_loss", "patience": 1}, "set": {"lr": 0.001}},
    ]
    net = tiny.network(data, optimizer=optimizer, actions=actions, **RECIPES[optimizer])
    whole = run(tmp_path / "whole", data, net, 10)
    run(tmp_path / "parts", data, net, 3)
    parts = run(tmp_path / "parts", data, net, 10)

    assert same(whole, parts)
    histories = [
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("whole", "parts")
    ]
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in h["learning_curve"]]
        for h in histories
    ]
    assert rows[0] == rows[1]
    assert [row["iteration"] for row in rows[0]] == [1, 4, 8, 10]


def test_actions_change_what_is_learned(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    action = {"at_iteration": 2, "set": {"warp_on": False}}
    plain = run(tmp_path / "plain", data, tiny.network(data), 4)
    changed = run(tmp_path / "changed", data, tiny.network(data, actions=[action]), 4)

    assert not same(plain, changed)


def test_training_reduces_the_loss_and_logs_it(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    net = tiny.network(data, history_freq=20)
    run(tmp_path, data, net, 120)
    record = json.loads((tmp_path / "training.json").read_text())
    rows, measured = record["learning_curve"], record["validation"]["rows"]
    (work,) = (tmp_path / "work").iterdir()

    assert rows[-1]["validation_error"] <= 0.1 < rows[0]["train_loss"]
    assert [row["lr"] for row in rows[:2]] == [0.05, pytest.approx(0.05 * 0.99)]
    assert rows[-1]["loss_ema"] < 0.65
    curve = [{k: row[f"validation_{k}"] for k in ("loss", "error")} for row in rows]
    assert [{k: row[k] for k in ("loss", "error")} for row in measured] == curve
    names = ("debug_batch", "timeline", "history", "errors")
    assert all((work / f"{name}.png").stat().st_size > 1000 for name in names)
    with (work / "history.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in table] == [1, 20, 40, 60, 80, 100, 120]
    assert float(table[0]["validation_loss"]) == pytest.approx(rows[0]["validation_loss"])


def make_task(tmp_path: Path, **changes: Any) -> tuple[ElektronnTask, Any]:
    data = tiny.dataset(tmp_path)
    settings = training(data, tiny.network(data, **changes), 50)
    trainer = build.build_trainer(read_train_settings(settings), {}, tmp_path / "work")
    assert isinstance(trainer.task, ElektronnTask)
    return trainer.task, trainer


def test_commands_take_effect_after_the_prefetched_batches(tmp_path: Path) -> None:
    task, _ = make_task(tmp_path)
    answers = [
        task.handle(Command(*command), 10, tmp_path)
        for command in (("lr", "0.002"), ("warp", "off"), ("history", "7"))
    ]

    assert answers[0] == f"from iteration {10 + LEAD} on"
    assert task.rates(10 + LEAD - 1)["lr"] == pytest.approx(0.05 * 0.99)
    assert task.rates(10 + LEAD)["lr"] == 0.002
    plain = task.data.batch(10 + LEAD, warp=False)["input"]
    assert torch.equal(task.batch(10 + LEAD)["input"], plain)
    assert task.history_freq == 7
    task.handle(Command("warp", "on"), 60, tmp_path)
    assert task.schedule.value("warp_on", 60 + LEAD) is True


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Command("lr", "fast"), "is no number, for example: lr 0.002"),
        (Command("warp", "maybe"), "neither on nor off"),
        (Command("momentum", "-1"), "below 0"),
        (Command("history", "0"), "at least 1"),
    ],
)
def test_a_command_that_cannot_be_carried_out_gets_an_error_reply(
    tmp_path: Path, command: Command, message: str
) -> None:
    task, _ = make_task(tmp_path)
    with pytest.raises(ConfigError, match=message):
        task.handle(command, 1, tmp_path)


def test_a_running_training_handles_its_control_file(tmp_path: Path) -> None:
    """Commands that wait at the first iteration: a picture, a mistake, and the end."""
    _, trainer = make_task(tmp_path)
    (tmp_path / "work" / "debug_batch.png").unlink()
    (tmp_path / "work" / "control").write_text("debug\nlr x\nlr 0.5\nstop\n")
    outcome = trainer.run()

    assert outcome.iteration == 1
    assert len(outcome.losses) == 1
    assert (tmp_path / "work" / "debug_batch.png").is_file()
    assert (tmp_path / "work" / "state_000000001.pt").is_file()
    log = (tmp_path / "work" / "control.log").read_text()
    assert "iteration 1: stop: done" in log
    assert "lr 'x' is no number" in log
    resumed = build.build_trainer(
        read_train_settings(
            training(tiny.dataset(tmp_path), tiny.network(tiny.dataset(tmp_path)), 50)
        ),
        {},
        tmp_path / "work",
    )
    assert resumed.task.rates(1 + LEAD)["lr"] == 0.5


def test_a_training_ends_when_its_time_is_up_and_resumes_with_more_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.dataset(tmp_path)
    limited = tiny.network(data, max_runtime=1)
    first = run(tmp_path / "a", data, limited, 10**6)
    done = json.loads((tmp_path / "a" / "training.json").read_text())["iterations"]

    assert 1 <= done < 10**6
    assert f"1 s are over at iteration {done} of 1000000" in capsys.readouterr().out
    again = run(tmp_path / "a", data, limited, 10**6)
    assert same(first, again)
    later = run(tmp_path / "a", data, tiny.network(data), done + 2)
    assert same(later, run(tmp_path / "b", data, tiny.network(data), done + 2))


def test_dropout_depends_on_the_number_of_the_batch(tmp_path: Path) -> None:
    task, trainer = make_task(tmp_path, dropout_rates=[0.3, 0.5])
    batches = [task.batch(n) for n in (3, 4)]
    first, again, other = (
        task.predict(trainer.module, {**batches[0], "number": b["number"]})["classes"]
        for b in (batches[0], batches[0], batches[1])
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


AUTOENCODER = {
    "name": "coder",
    "mode": "vect-scalar",
    "desired_input": 100,
    "filters": [],
    "pool": [],
    "nof_filters": [],
    "MLP_layers": [20, 6],
    "activation_func": "tanh",
    "autoencoder": {"input_noise": 0.1},
}


def test_pre_training_touches_only_the_named_layers(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    coder = run(tmp_path, data, tiny.network(data, **AUTOENCODER), 30)
    changes = {**AUTOENCODER, "name": "pre", "autoencoder": None}
    pretrained = {"network": "coder", "layers": [0]}
    net = tiny.network(data, **changes, pretrained=pretrained)
    settings = training(data, net, 1)
    weights = training_task.WeightFiles(init=tmp_path / "model.safetensors")
    begun = build.build_trainer(
        read_train_settings(settings), {}, tmp_path / "begun", weights
    ).module
    fresh = build.build_trainer(read_train_settings(settings), {}, tmp_path / "fresh").module
    before, now = fresh.state_dict(), begun.state_dict()

    changed = {name for name in now if not torch.equal(now[name], before[name])}
    assert changed == {"layers.0.weight", "layers.0.bias"}
    assert torch.equal(now["layers.0.weight"], coder["layers.0.weight"])
    net = tiny.network(data, **{**changes, "MLP_layers": [21, 6]}, pretrained=pretrained)
    with pytest.raises(DataError, match="need the same shape on both sides"):
        build.build_trainer(
            read_train_settings(training(data, net, 1)), {}, tmp_path / "other", weights
        )


def test_an_autoencoder_learns_to_reconstruct(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path, labelled=10)
    net = tiny.network(data, **AUTOENCODER, history_freq=50, SGD_params={"LR": 0.3})
    run(tmp_path, data, net, 150)
    report = json.loads((tmp_path / "training.json").read_text())
    rows = report["learning_curve"]

    assert report["terms"] == ["mse"]
    assert rows[-1]["validation_loss"] < 0.8 * rows[0]["validation_loss"]
    assert "validation_error" not in rows[0]


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    net = tiny.network(data, **AUTOENCODER, weight_decay=1e38)
    with pytest.raises(Exception, match="no number at iteration"):
        run(tmp_path, data, net, 6)


def test_the_example_networks_have_the_originals_parameters() -> None:
    data = datasets.load_dataset("mnist")
    counts = {
        "cnn_warp": 338410,
        "cnn_nowarp": 338410,
        "mlp": 296410,
        "standalone": 24058,
        "standalone_dropout": 59728,
        "autoencoder": 305750,
    }
    for name, count in counts.items():
        module = built(networks.network_for(name, data))
        layers = module.layers.parameters()
        assert sum(p.numel() for p in layers) == count, name
    warps = {n: networks.network_for(n, data).warp_on for n in ("cnn_warp", "cnn_nowarp")}
    assert warps == {"cnn_warp": True, "cnn_nowarp": False}
