"""Trainings, devices and folders that cannot work are refused while the workflow is planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from torch import nn

from planned_cubes import content, plan, write_cubes
from retrace.checkpoints.safetensors import save_model
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError, DeviceError
from retrace.planning import fetch, local_device, mask
from retrace.planning.experiment import Planner
from retrace.planning.finished_training import check_length
from retrace.planning.paths import folders_to_fetch
from retrace.remote.addresses import is_address


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with raw and labels of the volumes a and b in cubes.h5."""
    monkeypatch.chdir(tmp_path)
    write_cubes(tmp_path)
    return tmp_path


def finish_training(
    network: str,
    iterations: int,
    seed: int = 0,
    trained_s: float = 0,
    limit_s: float | None = None,
    dataset: str = "mine",
) -> None:
    folder = Path("results") / dataset / network
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model.safetensors", nn.Linear(1, 1), {"iteration": iterations})
    history = {"iterations": iterations, "seed": seed, "training_seconds": trained_s}
    (folder / "training.json").write_text(json.dumps(history))
    record = {"identity": {"settings": {"seconds": limit_s, "seed": seed}}}
    (folder / "model.record.json").write_text(json.dumps(record))


def test_fewer_iterations_than_trained_are_refused(place: Path) -> None:
    finish_training("mtlsd_small", 6)

    with pytest.raises(ConfigError, match=r"trained for 6 iterations, and 4 are requested.*to 6"):
        plan(settings={"iterations": 4})
    for more in (6, 8):
        plan(settings={"iterations": more})
    plan(settings={"iterations": 4, "seed": 1})


def test_the_refusal_names_the_states_that_a_shorter_training_would_resume_from(
    place: Path,
) -> None:
    finish_training("mtlsd_small", 6)
    model = Path("results/mine/mtlsd_small/model.safetensors")
    save_model(model, nn.Linear(1, 1), {"iteration": 6, "training_digest": "0123456789abcdef"})
    states = Path("work/train/mine_mtlsd_small_0123456789abcdef")
    states.mkdir(parents=True)
    named = f"move {model}, {model.with_name('training.json')} and {states} to another folder"
    with pytest.raises(ConfigError, match=named):
        plan(settings={"iterations": 4})
    model.with_name("training.json").unlink()
    with pytest.raises(ConfigError, match=f"move {model} and {states} to another folder"):
        plan(settings={"train_seconds": 7})


def test_the_refusal_names_the_states_of_the_legacy_engine(place: Path) -> None:
    finish_training("mtlsd", 6)
    own, other = (
        Path(f"work/legacy/mine_{name}_0123456789abcdef") for name in ("mtlsd", "mtlsd_small")
    )
    for folder in (own, other):
        folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"training\.json and {own} to another folder"):
        plan(settings={"iterations": 4}, network="mtlsd")


def test_less_time_than_trained_is_refused(place: Path) -> None:
    finish_training("mtlsd_small", 6, trained_s=9.04, limit_s=9)

    with pytest.raises(ConfigError, match=r"for 10 s, and 7 are requested.*Set `train_seconds`"):
        plan(settings={"train_seconds": 7})
    for more in (9, 9.02, 12):
        plan(settings={"train_seconds": more})
    plan(settings={"train_seconds": 7, "seed": 1})


def test_less_time_than_a_training_without_limit_took_is_refused(place: Path) -> None:
    finish_training("mtlsd_small", 6, trained_s=9.04)

    with pytest.raises(ConfigError, match=r"for 10 s, and 9 are requested"):
        plan(settings={"train_seconds": 9})
    plan(settings={"train_seconds": 10})


def test_a_lower_max_runtime_than_a_training_took_is_refused(place: Path) -> None:
    config = WorkflowConfig().complete(deep=True)
    network = Planner(Path(), config).network("mnist", "cnn_warp").with_(max_runtime=9)
    finish_training("cnn_warp", 6, trained_s=9.04, dataset="mnist")

    with pytest.raises(ConfigError, match=r"for 10 s, and 9 are requested.*Set `max_runtime`"):
        check_length(config, "mnist", network)
    finish_training("cnn_warp", 6, trained_s=9.04, limit_s=9, dataset="mnist")
    check_length(config, "mnist", network)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_shorter_training_is_refused_without_training_json(place: Path, damaged: bool) -> None:
    finish_training("mtlsd_small", 6, trained_s=9, limit_s=9)
    history = Path("results/mine/mtlsd_small/training.json")
    history.unlink()
    if damaged:
        history.write_text('{"iterations":')

    with pytest.raises(ConfigError, match=r"trained for 6 iterations, and 4 are requested"):
        plan(settings={"iterations": 4})
    with pytest.raises(ConfigError, match=r"`train_seconds` may end .*training\.json, which is"):
        plan(settings={"train_seconds": 7})
    plan(settings={"iterations": 6})
    plan(settings={"train_seconds": 9})
    plan(settings={"iterations": 4, "seed": 1})


def test_fewer_epochs_of_an_alignment_are_refused_without_training_json(place: Path) -> None:
    network = Planner(Path(), WorkflowConfig().complete(deep=True)).network("phantom", "seamless")
    folder = Path("results/phantom/seamless")
    folder.mkdir(parents=True)
    save_model(folder / "model.safetensors", nn.Linear(1, 1), {"iteration": 21})
    settings = {"seed": 0, "epochs": 7, "iterations": None, "network": {"epochs": 3}}
    record = {"identity": {"settings": settings}}
    (folder / "model.record.json").write_text(json.dumps(record))

    with pytest.raises(ConfigError, match=r"trained for 21 iterations, and 18 are requested"):
        check_length(WorkflowConfig(epochs=6).complete(deep=True), "phantom", network)
    check_length(WorkflowConfig(epochs=7).complete(deep=True), "phantom", network)


def test_fewer_iterations_of_an_upstream_network_are_refused(place: Path) -> None:
    finish_training("lsd_small", 6)

    with pytest.raises(ConfigError, match="lsd_small/model.safetensors is trained for 6"):
        plan(settings={"iterations": {"lsd_small": 4}}, network="aclsd_small")


def test_an_absent_device_is_refused_where_jobs_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_device, "has_gpu", lambda: False)

    plan(settings={"device": "cuda"})
    with pytest.raises(DeviceError, match="`device: cuda` needs a GPU"):
        plan(settings={"device": "cuda"}, runs_here=True)
    plan(settings={"device": "cuda"}, verb="view", runs_here=True)
    plan(runs_here=True)


@pytest.mark.parametrize("folder", ["results", "work", "logs"])
def test_folders_that_cannot_be_written_are_refused(place: Path, folder: str) -> None:
    Path(folder).write_text("a file")
    with pytest.raises(ConfigError, match=f"{folder} is no folder"):
        plan()
    Path(folder).unlink()
    Path(folder).symlink_to("/nowhere/scratch")
    with pytest.raises(ConfigError, match="is a link to /nowhere/scratch, which does not exist"):
        plan()


def test_targets_of_data_need_folders_that_can_be_written(place: Path) -> None:
    planner = Planner(Path(), WorkflowConfig.model_validate({}).complete(deep=True))
    for folder, target in (("results", mask.masks), ("data", fetch.fetched_files)):
        Path(folder).write_text("a file")
        with pytest.raises(ConfigError, match=f"{folder}/fib25.* {folder} is no folder"):
            target(planner, "fib25")
        Path(folder).unlink()


@pytest.mark.parametrize("address", ["https://h/a.zarr", "cubes.h5"])
def test_masks_of_streamed_labels_compare_their_place_with_the_image(
    place: Path, address: str
) -> None:
    sources = {part: {"path": address, "array": f"a/{part}"} for part in ("raw", "labels")}
    dataset = content(volumes={"a": sources, "b": content()["volumes"]["b"]})
    Path("config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset))
    planner = Planner(Path(), WorkflowConfig.model_validate({}).complete(deep=True))

    settings = mask.mask_job(planner, "mine", "a").settings
    assert (settings.explicit().get("image") is not None) == is_address(address)


def test_a_folder_of_complete_downloads_may_be_read_only(place: Path) -> None:
    bucket = {"prefix": "p", "raw": "volumes/raw", "labels": "volumes/labels"}
    dataset = content(volumes={"a": {}, "b": {}}, bucket=bucket)
    Path("config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset))
    data = Planner(Path(), WorkflowConfig.model_validate({}).complete(deep=True)).dataset("mine")
    for name in "ab":
        assert folders_to_fetch(data) == ["data/mine"]
        Path(f"data/mine/{name}.zarr").mkdir(parents=True)
        Path(f"data/mine/{name}.manifest.json").touch()
    assert folders_to_fetch(data) == []


@pytest.mark.parametrize(
    ("words", "may_be_elsewhere"),
    [
        ("--dry-run --workflow-profile none -e local", False),
        ("--workflow-profile=none", False),
        ("--workflow-profile profiles/slurm", True),
        ("--profile=mine --workflow-profile none", True),
        ("--executor slurm", True),
        ("train_none local", False),
    ],
)
def test_a_dry_run_is_of_this_machine_unless_its_options_may_name_another(
    words: str, may_be_elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    assert local_device.names_executor(words.split()) is may_be_elsewhere
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "mine")
    assert local_device.names_executor(words.split())
