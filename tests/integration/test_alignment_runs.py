"""Named trainings of an alignment network are kept, and a second store that is gone is noticed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import tiny_seamless as tiny
import tiny_workflow

pytestmark = pytest.mark.timeout(900)

Start = Callable[..., str]
BASE = ("run=base", "iterations=4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the finished run `base`."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.write_configuration(folder)
    network = yaml.safe_load((folder / "config/networks/tiny.yaml").read_text())
    fine = folder / "config/networks/fine.yaml"
    fine.write_text(yaml.safe_dump(network | {"name": "fine"}))
    return folder


@pytest.fixture(scope="module")
def start(place: Path) -> Start:
    """Runs Snakemake in `place`; what it printed."""

    def run(*words: str, fails: bool = False, target: str = "train_slices_tiny") -> str:
        config = [word for word in words if not word.startswith("-")]
        options = [word for word in words if word.startswith("-")]
        command = ["--cores", "1", *options, target, "--config", "device=cpu", *config]
        status, printed = tiny_workflow.finish(place, command)
        assert (status != 0) == fails, printed[-6000:]
        return printed

    run(*BASE)
    return run


@pytest.fixture
def slices(place: Path) -> Iterator[Callable[[str, object], None]]:
    """Changes a setting of the stacks; it is changed back at the end."""
    path = place / "config/datasets/slices.yaml"
    before = path.read_text()

    def change(name: str, value: object) -> None:
        content = yaml.safe_load(before)
        content["alignment"]["stacks"]["main"][name] = value
        path.write_text(yaml.safe_dump(content))

    yield change
    path.write_text(before)


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("epochs=3",), "its last iteration is 4, and 12 is requested"),
        (("iterations=6",), "its last iteration is 4, and 6 is requested"),
        ((BASE[1], "seed=1"), "seed changed from 0 to 1"),
        ((BASE[1], "validation={every: never}"), "main_validation.h5 is not read any more"),
    ],
)
def test_a_name_that_is_taken_is_refused_at_planning(
    start: Start, words: tuple[str, ...], difference: str
) -> None:
    printed = start("-n", BASE[0], *words, fails=True)

    assert f"{difference}), which is not overwritten; choose another name" in printed


@pytest.mark.parametrize(("name", "value"), [("count", 3), ("validation_count", 2)])
def test_other_stacks_are_refused_at_planning(
    start: Start, slices: Callable[[str, object], None], name: str, value: int
) -> None:
    slices(name, value)

    printed = start("-n", *BASE, fails=True)

    assert re.search(rf"`run: base` is .*main_train\.h5: stacks\.{name} changed", printed)


def test_two_trainings_with_one_name_are_refused_at_planning(start: Start) -> None:
    words = ("init=results/slices/tiny/model.safetensors", "run=new", "iterations=4")

    printed = start("-n", *words, fails=True, target="train_slices_fine")

    assert "`run: new` would name two trainings" in printed


def test_a_repeated_training_is_accepted_and_a_second_store_is_made_again(
    place: Path, start: Start
) -> None:
    run = {path: path.read_bytes() for path in (place / "results/runs/base").iterdir()}
    stacks = (place / "results/slices/stacks/main_validation.h5").read_bytes()
    for gone in ("slices/tiny", "slices/stacks", "slices/sections/truth.zarr"):
        shutil.rmtree(place / "results" / gone)
    shutil.rmtree(place / "work/train")

    printed = start(*BASE)

    assert "results/slices/sections/truth.zarr is computed again: it is missing" in printed
    assert (place / "results/slices/stacks/main_validation.h5").read_bytes() == stacks
    assert run == {path: path.read_bytes() for path in (place / "results/runs/base").iterdir()}


def test_sections_that_are_made_again_restart_no_training(place: Path, start: Start) -> None:
    start("--forcerun=make_sections", *BASE)
    assert "Nothing to be done" in start("-n", *BASE)

    shutil.rmtree(place / "results/slices/sections/truth.zarr")
    (place / "results/slices/stacks/main_train.h5").unlink()
    printed = start("run=more", "iterations=5")

    assert "resumes at iteration 4" in printed
    assert sorted(path.name for path in (place / "results/runs").iterdir()) == ["base", "more"]
