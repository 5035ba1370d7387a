"""The curves of ELEKTRONN's trainings: short, resumed and interrupted ones have points too."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import examples
import tiny_digits as tiny
import tiny_elektronn as cubes
import train
from retrace.planning.train_settings import read_train_settings
from retrace.training import build, elektronn_curves
from retrace.training.elektronn_curves import Panel, curve_pictures, smoothed_losses
from tiny_training import arguments, training

pytestmark = pytest.mark.usefixtures("tiny_threads")
PICTURES = ("timeline", "history", "errors")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Panel]]:
    """The panels of each picture that is drawn, by its name; the last drawing counts."""
    kept: dict[str, list[Panel]] = {}
    draw = elektronn_curves._draw

    def keep(rows: Any, path: Path, panels: Any) -> Path:
        kept[path.stem] = list(panels)
        return draw(rows, path, panels)

    monkeypatch.setattr(elektronn_curves, "_draw", keep)
    return kept


def points(panels: list[Panel]) -> list[int]:
    """The most points of a curve in each panel."""
    return [max((len(curve.at) for curve in panel.curves), default=0) for panel in panels]


def run(folder: Path, data: Any, net: Any, iterations: int) -> dict[str, Any]:
    """Trains, draws the curves of the result, and returns training.json."""
    train.main(arguments(folder, training(data, net, iterations)))
    history = folder / "training.json"
    examples.main(["curves", "--history", str(history), "--output", str(folder / "results")])
    content: dict[str, Any] = json.loads(history.read_text())
    return content


@pytest.mark.parametrize(("iterations", "rows"), [(1, [1]), (3, [1, 3]), (5, [1, 4, 5])])
def test_a_short_training_has_its_first_and_its_last_point(
    iterations: int, rows: list[int], tmp_path: Path, drawn: dict[str, list[Panel]]
) -> None:
    data = tiny.dataset(tmp_path)
    content = run(tmp_path, data, tiny.network(data), iterations)

    assert [row["iteration"] for row in content["learning_curve"]] == rows
    count = len(rows)
    assert points(drawn["timeline"]) == [iterations, count]
    assert points(drawn["history"]) == [count, count]
    assert points(drawn["errors"]) == [count]
    assert all((tmp_path / "results" / f"{name}.png").is_file() for name in PICTURES)


def test_previews_of_a_short_training_are_its_first_and_its_last(tmp_path: Path) -> None:
    cubes.write_cubes(tmp_path)
    data, net = cubes.dataset(tmp_path), cubes.network(snapshot_every=100)
    train.main(arguments(tmp_path, training(data, net, 3)))
    (work,) = (tmp_path / "work").iterdir()

    names = sorted(path.name for path in (work / "preview").iterdir())
    assert [name.rsplit("-", 1)[1] for name in names] == ["00000001.png", "00000003.png"]


def test_networks_that_learn_values_have_errors_too(
    tmp_path: Path, drawn: dict[str, list[Panel]]
) -> None:
    data = tiny.dataset(tmp_path)
    layers: dict[str, Any] = {"filters": [], "pool": [], "nof_filters": [], "MLP_layers": [20, 6]}
    coder = {"name": "coder", "mode": "vect-scalar", "desired_input": 100, "autoencoder": {}}
    content = run(tmp_path, data, tiny.network(data, **layers, **coder), 5)

    (panel,) = drawn["errors"]
    assert panel.label == "root of the mean squared error"
    expected = [row["validation_loss"] ** 0.5 for row in content["learning_curve"]]
    np.testing.assert_allclose(panel.curves[1].values, expected)


def test_an_interrupted_training_leaves_curves_and_a_resumed_one_continues_them(
    tmp_path: Path, drawn: dict[str, list[Panel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.dataset(tmp_path)
    settings = training(data, tiny.network(data), 10)
    trainer = build.build_trainer(read_train_settings(settings), {}, tmp_path / "work")
    after_step = trainer.task.after_step

    def interrupted_at_6(module: Any, iteration: int, losses: Any, work: Path) -> None:
        after_step(module, iteration, losses, work)
        if iteration == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer.task, "after_step", interrupted_at_6)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        trainer.run()
    assert all((tmp_path / "work" / f"{name}.png").is_file() for name in PICTURES)
    assert points(drawn["timeline"]) == [6, 2]
    assert points(drawn["errors"]) == [2]

    resumed = build.build_trainer(read_train_settings(settings), {}, tmp_path / "work")
    outcome = resumed.run()
    rows = resumed.task.history(outcome.progress, tmp_path / "work")["learning_curve"]
    assert [row["iteration"] for row in rows] == [1, 4, 8, 10]
    assert points(drawn["timeline"]) == [10, 4]


def test_a_finished_training_that_runs_again_measures_the_same_end(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    first = run(tmp_path, data, tiny.network(data), 6)["learning_curve"]
    again = run(tmp_path, data, tiny.network(data), 6)["learning_curve"]

    for row in (*first, *again):
        del row["seconds"]
    assert first == again


def test_the_first_large_values_do_not_hide_the_rest() -> None:
    rows = [{"iteration": n, "train_error": e} for n, e in ((1, 0.9), (2, 0.04), (3, 0.02))]
    values = [100 * row["train_error"] for row in rows]
    (few, _) = elektronn_curves._split_curves(rows, "error", 100)
    rows.append({"iteration": 4, "train_error": 0.02})
    (curve, _) = elektronn_curves._split_curves(rows, "error", 100)

    np.testing.assert_allclose(few.values, values)
    assert few.smooth is not None and few.smooth[-1] == pytest.approx(np.mean(values))
    assert curve.smooth is not None and len(curve.values) == 4
    np.testing.assert_allclose(curve.smooth, [4, 3, 8 / 3])
    assert elektronn_curves._limits(np.array([4.0, 2, 2])) == (0, pytest.approx(4.4))
    low, high = elektronn_curves._limits(np.array([-0.2, 0.1]))
    assert low < -0.2 and high > 0.1


def test_a_measurement_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.dataset(tmp_path)
    train.main(arguments(tmp_path, training(data, tiny.network(data), 1)))
    text = capsys.readouterr().out

    line = next(x for x in text.splitlines() if x.startswith("[train] iteration 1: loss"))
    for part in ("train error", "validation error", "loss change", "lr 0.05000"):
        assert part in line
    data_set = "3-class data set: 70 training examples and 20 for validation, each (1, 10, 10)"
    assert f"[train] {data_set}\n" in text


def test_nothing_to_draw_is_written_into_the_picture(tmp_path: Path) -> None:
    paths = curve_pictures([], [], tmp_path)

    assert [path.stem for path in paths] == list(PICTURES)


def test_a_smoothed_loss_of_ranges_is_that_of_their_iterations() -> None:
    single = smoothed_losses([(number, 0.3) for number in range(1, 21)])
    ranges = smoothed_losses([(5, 0.3), (20, 0.3)])

    assert single[0] == pytest.approx(0.995 * 0.65 + 0.005 * 0.3)
    assert ranges == pytest.approx([single[4], single[19]])


def test_a_measurement_has_the_loss_before_the_update(tmp_path: Path) -> None:
    """Conjugate gradients evaluate the batch again, with other weights, during an update."""
    data = tiny.dataset(tmp_path)
    content = run(tmp_path, data, tiny.network(data, optimizer="CG", history_freq=1), 3)

    measured = [row["loss"] for row in content["learning_curve"]]
    assert measured == pytest.approx([row["loss"] for row in content["history"]])
    assert all(row["loss_change"] < 0 for row in content["learning_curve"])
