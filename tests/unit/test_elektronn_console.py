"""The words of ELEKTRONN's console, as a user of its examples types them."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_digits as tiny
from retrace.errors import ConfigError
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training.elektronn_console import as_command
from tiny_training import training


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (">>> data.warp_on = False # Turn off warping", "warp off"),
        (">>> setlr 0.002          # Lower learning rate", "lr 0.002"),
        (">>> mfk@ELEKTRONN: self.debugGetCNNBatch()", "debug"),
        ("setmom 0.8", "momentum 0.8"),
        ("sethist 200", "history 200"),
        ("data.warp_on=True", "warp on"),
        ("abort", "stop"),
        ("save", "save"),
        ("lr 0.002", "lr 0.002"),
    ],
)
def test_words_of_the_documents_are_commands(typed: str, command: str) -> None:
    assert as_command(typed) == command


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (">>> q                    # quit console", "never paused"),
        (">>> print self.testModel('test')", "snakemake evaluate_DATASET_NETWORK"),
        ("self.testModel('valid')", "history.csv"),
        ("kill", "delete its work folder"),
        ("load a.param", "--config init=FILE"),
        ("save a.param", "net.param"),
        ("CG", "`optimizer` of the network"),
        ("cnn.setDropoutRates([0, 0])", "Python, which is not executed"),
        ("params", "describe NETWORK"),
    ],
)
def test_words_without_a_command_say_what_to_do(typed: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        as_command(typed)


def test_a_running_training_takes_the_lines_of_the_document(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    settings = read_train_settings(training(data, tiny.network(data), 50))
    trainer = build.build_trainer(settings, {}, tmp_path / "work")
    typed = "data.warp_on = False # Turn off\nsetlr 0.002\nq\nself.debugGetCNNBatch()\nabort\n"
    (tmp_path / "work" / "control").write_text(typed)
    outcome = trainer.run()

    assert outcome.iteration == 1
    log = (tmp_path / "work" / "control.log").read_text().splitlines()
    assert log[0].startswith("iteration 1: warp off: from iteration 33")
    assert log[1].startswith("iteration 1: lr 0.002: from iteration 33")
    assert any("'q' has no command: a training is never paused" in line for line in log)
    assert log[-1] == "iteration 1: stop: done"
    assert trainer.task.rates(33)["lr"] == 0.002  # type: ignore[attr-defined]
