"""The benchmarks of alignment: paired differences, seeds, shared errors, what is not done again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from retrace.displacement import warp
from retrace.synthetic.distorted_sections import Distortion, distort_sections

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPTIONS = "--data phantom --side 128 --versions 1 --tests 1 --iterations 1 --no-classical"
SMALL = OPTIONS.split()
DRIFT = "--kinds plain --seeds 1 --sections 3 --side 128 --methods network ILK"


@pytest.fixture
def alignment(monkeypatch: pytest.MonkeyPatch, tiny_threads: None) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("alignment")


def test_differences_are_paired_by_seed(alignment: Any) -> None:
    ilk = [{"seed": 0, "error_px": 2.0}, {"seed": 1, "error_px": 4.0}]
    network = [{"seed": 1, "error_px": 3.5}, {"seed": 0, "error_px": 1.5}]

    assert alignment.differences(ilk, network, "error_px", ".1f") == "0.5 ± 0.0"


def test_seeds_share_no_stack(alignment: Any) -> None:
    args = alignment.parse_args(SMALL)
    stacks = [
        stack for seed in (0, 1) for part in alignment.make_stacks(args, seed) for stack in part
    ]

    assert [s.name for s in stacks] == ["phantom_0", "phantom_100", "phantom_1000", "phantom_1100"]
    assert not torch.equal(stacks[1].images, stacks[3].images)


def test_sections_of_fib25_are_scored_only(
    alignment: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        alignment.parse_args(["--data", "fib25"])
    assert "scored only" in capsys.readouterr().err
    mixed = [*SMALL, "--data", "fib25", "--mixed", "--tests", "2"]
    trained, scored = alignment.make_stacks(alignment.parse_args(mixed), 1)

    assert [stack.name for stack in trained] == ["vnc_1000", "phantom_1000"]
    assert [stack.name for stack in scored] == ["fib25_1100", "fib25_1101"]
    assert not torch.equal(scored[0].images, scored[1].images)  # other sections, not only moved


def test_what_is_scored_is_not_done_again(
    alignment: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*SMALL, "--seeds", "0", "--folder", str(tmp_path)]
    alignment.main(options)
    first = capsys.readouterr().out.splitlines()[-8:]
    monkeypatch.setattr(alignment, "trainer_of", None)
    alignment.main(options)

    assert capsys.readouterr().out.splitlines()[-8:] == first
    assert (tmp_path / "phantom_0_1.safetensors").is_file()
    with pytest.raises(SystemExit, match="other options"):
        alignment.main([*options, "--jitter", "3"])
    with pytest.raises(SystemExit, match="other options"):  # the weights of --mixed are shared
        alignment.main([*options, "--data", "vnc", "--jitter", "3"])


def test_drift_has_a_line_for_each_method(
    alignment: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    drift = importlib.import_module("drift")
    drift.main(DRIFT.split())
    lines = capsys.readouterr().out.splitlines()

    assert [line.split(" | ")[:2] for line in lines[-2:]] == [
        ["| plain", "network"],
        ["| plain", "ILK"],
    ]


def test_an_error_of_the_registration_is_shared_by_all_distortions(alignment: Any) -> None:
    module = importlib.import_module("shared_error")
    registration = torch.tensor([0.6, -0.8]).reshape(1, 2, 1, 1)
    sections = torch.rand(2, 128, 128).mul(255).byte().numpy()
    errors = []
    for seed, own in enumerate((0.5, -0.5, 0.5, -0.5)):
        stack = distort_sections(sections, seed, Distortion(2, 2.0, 32), "one")
        (pair,) = alignment.pairs_of([stack])
        goal = pair.target_field + registration
        field = torch.zeros_like(goal)
        for _ in range(20):  # leads to the same tissue, but for the registration
            field = goal - warp(pair.source_field, field, "border")
        errors.append(module.error_vectors(field + torch.tensor([own, 0.0])[:, None, None], pair))
    shared, variance = module.divided(torch.stack(errors))

    assert shared == pytest.approx(1.0 - variance / 4, abs=0.1)  # what few distortions add
    assert variance == pytest.approx(4 * 0.25 / 3, abs=0.05)
