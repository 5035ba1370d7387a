"""Runs of ZNN's own programs for a .cfg: what is planned, and what a training continues from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

import tiny_znn as tiny
import train
import znn_trainings
from retrace.checkpoints.znn import read_h5, torch_filters
from retrace.config import yaml_files
from retrace.errors import ConfigError, DataError
from retrace.planning import resumption, znn_runs
from retrace.planning.experiment import Planner
from retrace.planning.foreign_files import WrittenFiles, outputs_job
from retrace.planning.initial_weights import for_targets
from retrace.planning.predict import predict_job
from retrace.planning.train import start_of, train_job
from retrace.planning.weights import IMPORT_JOBS
from retrace.storage.owned_files import RECORD, own
from retrace.training.build import build_trainer
from retrace.training.state import state_files
from retrace.training.task import WeightFiles
from retrace.znn.cfg import read_cfg
from retrace.znn.net_h5 import stored_iteration
from run_config import run_config
from tiny_training import arguments, training
from znn_tutorial import lay_out, with_values

pytestmark = pytest.mark.usefixtures("shared_dir", "tiny_threads")
SHORT = {"train_range": "1", "test_range": "1", "forward_range": "2", "Max_iter": "6"}
SHORT |= {"Num_iter_per_save": "2", "train_outsz": "1,8,8"}
NAMES = ("znn_experiments_piriform_n4_net", "znn_cfg")
PREFIX = "experiments/piriform/N4/net"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ZNN's folder, the working directory, with the tutorial's literal files."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, **SHORT)
    monkeypatch.setattr(yaml_files, "_GIVEN", {})
    yield tmp_path


def planner(**changes: Any) -> Planner:
    """The planner of a run with the tutorial's .cfg."""
    config = run_config(**{"cfg": "python/config.cfg", **changes})
    config, meant = for_targets(config, [], znn_runs.give_cfg(config))
    return Planner(Path(), config, init_is_for=meant)


def change(**values: str) -> None:
    """Writes the tutorial's files again, with other values in the .cfg."""
    lay_out(Path.cwd(), **{**SHORT, **values})


def write_net(path: str, iteration: int, eta: float = 0.01, **filters: Any) -> Path:
    """A network file of ZNN with a learning curve, as planning reads it."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as h5:
        h5["processing/znn/train/statistics/train/it"] = [iteration]
        h5.attrs["note"] = str(eta)
    return file


def test_the_result_folder_is_named_after_the_experiment(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(cfg="python/config.cfg")

    assert znn_runs.give_cfg(config) == NAMES
    assert "voxels are 1 x 1 x 1 nm" in capsys.readouterr().err
    assert planner(voxel_size_nm=[50, 4, 4]).dataset(NAMES[0]).voxel_size_nm == (50, 4, 4)


def test_other_prefixes_have_other_result_folders() -> None:
    prefixes = ["a/net", "a_net", "a-net", "a/net_", "../a/net", "up/a/net", "ä/net", "net", "a b"]
    names = set()
    for prefix in prefixes:
        change(train_net_prefix=f"../{prefix}")
        names.add(znn_runs.dataset_name(read_cfg(Path("python/config.cfg")), "config.cfg"))

    assert len(names) == len(prefixes)
    assert {"znn_a_net", "znn_up_a_net", "znn_net"} < names


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (["train_znn"], {"cfg": None}, "train_znn needs the configuration of ZNN: --config cfg="),
        (["train_zfinch_mtlsd"], {}, "`cfg` is for train_znn and forward_znn alone"),
        (["train_znn", "forward_znn"], {}, "net_current.h5 changes meanwhile; run train_znn first"),
        (["train_znn", "forward_znn"], {"init": "a.h5"}, "`init` may be for either"),
    ],
)
def test_targets_that_do_not_go_with_a_cfg_are_refused(
    words: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        znn_runs.check_words(run_config(**{"cfg": "python/config.cfg", **changes}), words)


def test_a_voxel_size_without_a_cfg_and_a_cfg_without_a_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="`voxel_size_nm` belongs to a run with `cfg"):
        znn_runs.give_cfg(run_config(voxel_size_nm=[4, 4, 4]))
    cfg = Path("python/config.cfg")
    cfg.write_text(cfg.read_text().replace("fnet_spec =", "# fnet_spec ="))
    with pytest.raises(ConfigError, match="config.cfg has no fnet_spec; add it"):
        planner()


def test_a_training_reads_its_ranges_alone_and_may_measure_itself_on_the_same_sample() -> None:
    Path("dataset/ISBI2012/test-volume.tif").unlink()
    settings = train_job(planner(), *NAMES).settings

    assert [entry.volume for entry in settings.dataset.train] == ["sample1"]
    assert [entry.volume for entry in settings.dataset.validation] == ["sample1"]
    assert settings.dataset.train[0].exclude_nm == ()
    assert (settings.iterations, settings.network.checkpoint_every) == (6, 2)


def test_forward_reads_forward_net_and_needs_no_labels(capsys: pytest.CaptureFixture[str]) -> None:
    write_net(f"{PREFIX}_current.h5", 4)
    Path("dataset/ISBI2012/train-labels.tif").unlink()
    change(train_range="2")
    run = planner()
    files = znn_runs._forward_files(run)

    stem = f"results/{'/'.join(NAMES)}"
    assert f"{stem}/sample2/znn_outputs.json" in files
    assert not [file for file in files if "sample1" in file]
    job = predict_job(run, *NAMES, "sample2")
    assert job.inputs["model"] == f"{stem}/published.safetensors"
    assert job.settings.dtype == "float32"
    assert IMPORT_JOBS["h5"](run, *NAMES).inputs == {"h5": f"python/../{PREFIX}_current.h5"}
    prefix = outputs_job(run, *NAMES, "sample2").settings.prefix
    assert prefix == "python/../experiments/piriform/N4/out"
    write_net("other.h5", 1)
    other = planner(init="other.h5")
    assert IMPORT_JOBS["h5"](other, *NAMES).inputs == {"h5": "other.h5"}
    capsys.readouterr()
    predict_job(other, *NAMES, "sample2")
    printed = capsys.readouterr().err
    assert "config.cfg: `init` other.h5 predicts; nothing is trained" in printed
    assert "forward_net" not in printed


def test_a_forward_net_that_is_missing_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"forward_net names .*net_current\.h5, which does not"):
        znn_runs._forward_files(planner())
    change(forward_net="", forward_range="")
    with pytest.raises(ConfigError, match="has no forward_net; add the network to predict with"):
        znn_runs._forward_files(planner())
    with pytest.raises(ConfigError, match="`init: gone.h5`, which does not exist"):
        predict_job(planner(init="gone.h5"), *NAMES, "sample2")


def yaml_planner(**changes: Any) -> Planner:
    """A planner that knows the .cfg by a dataset and a network `mine`."""
    for kind, more in (("datasets", {"voxel_size_nm": [4, 4, 4]}), ("networks", {"family": "znn"})):
        file = Path(f"config/{kind}/mine.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"name": "mine", "cfg": "python/config.cfg", **more}))
    return Planner(Path(), run_config(**changes))


def test_a_network_of_ours_obeys_the_forward_net_of_its_cfg_too() -> None:
    change(test_range="", forward_range="1")
    with pytest.raises(ConfigError, match=r"which does not exist.*`snakemake train_mine_mine`"):
        predict_job(yaml_planner(), "mine", "mine", "sample1")
    write_net(f"{PREFIX}_current.h5", 4)
    job = predict_job(yaml_planner(), "mine", "mine", "sample1")

    assert job.inputs["model"] == "results/mine/mine/published.safetensors"
    with pytest.raises(ConfigError, match="nothing is trained from `init: a.h5`; leave one"):
        predict_job(yaml_planner(init={"mine": "a.h5"}), "mine", "mine", "sample1")
    given = yaml_planner(init={"mine": "a.h5"}, weights="published")
    assert IMPORT_JOBS["h5"](given, "mine", "mine").inputs == {"h5": "a.h5"}
    with pytest.raises(ConfigError, match="sample1' is in train and whole in test"):
        train_job(yaml_planner(), "mine", "mine")


@pytest.mark.parametrize("train", [[], ["stack"], ["unlabelled"]])
def test_a_prediction_with_given_weights_asks_nothing_of_what_is_trained_on(
    train: list[str],
) -> None:
    volume = {"raw": {"path": "dataset/ISBI2012/train-volume.tif"}}
    labels = {"labels": {"path": "dataset/ISBI2012/train-labels.tif"}}
    content = {"name": "mine", "voxel_size_nm": [4, 4, 4], "test": ["stack"], "train": train}
    content["volumes"] = {"stack": volume | labels, "unlabelled": volume}
    file = Path("config/datasets/mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    write_net("net.h5", 4)
    given = Planner(Path(), run_config(init={"n4": "net.h5"}, weights="published"))

    predicted = predict_job(given, "mine", "n4", "stack")
    assert predicted.inputs["model"] == "results/mine/n4/published.safetensors"
    with pytest.raises(ConfigError, match="no `train` entry|whole in test|has none"):
        predict_job(Planner(Path(), run_config()), "mine", "n4", "stack")


def test_parameters_without_effect_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    change(is_check="yes")
    net = Path("networks/N4.znn")
    net.write_text(f"{net.read_text()}\nload 0\n")
    train_job(planner(), *NAMES)
    printed = capsys.readouterr().err

    assert "config.cfg:84: is_check = yes has no effect: patches are not" in printed
    assert "load = 0 has no effect: layers with the same name and shape are loaded" in printed


# ---------------------------------------------------------------- what a training continues


def start(**changes: Any) -> resumption.Start:
    """How the training of the tutorial's .cfg begins now."""
    run = planner(**changes)
    begun = start_of(run, train_job(run, *NAMES).settings)
    assert begun is not None
    return begun


def test_a_network_of_somebody_else_at_the_prefix_is_continued_and_kept() -> None:
    assert start().copy is None
    net = write_net(f"{PREFIX}_current.h5", 4)
    content = net.read_bytes()
    first = start()
    assert first.source is not None
    assert first.source.samefile(net)
    assert first.iteration == 4
    WrittenFiles().check(train_job(planner(), *NAMES).settings, first.folder, first)
    resumption.begin(first)

    assert first.copy is not None
    assert first.copy.read_bytes() == content
    write_net(f"{PREFIX}_current.h5", 6)  # as the training does
    own(first.folder / RECORD, [net])
    again = start()
    assert (again.copy, again.source) == (first.copy, None)
    job = train_job(planner(), *NAMES)
    assert job.inputs["resumed"] == job.untracked_files()[0] == str(first.copy)
    change(eta="0.001", Max_iter="9")
    other = start()
    assert (other.source is not None, other.iteration) == (True, 6)
    first.copy.unlink()
    change()
    with pytest.raises(ConfigError, match="resumed.h5, which this training continues, is gone"):
        start()


def test_a_training_with_nothing_left_or_with_later_networks_at_the_prefix_is_refused() -> None:
    write_net(f"{PREFIX}_current.h5", 6)
    with pytest.raises(ConfigError, match="is at iteration 6, and training ends at 6, so nothing"):
        start()
    write_net(f"{PREFIX}_current.h5", 2)
    for kept in ("init", "2"):
        write_net(f"{PREFIX}_{kept}.h5", 2)
    begun, settings = start(), train_job(planner(), *NAMES).settings
    WrittenFiles().check(settings, begun.folder, begun)
    write_net(f"{PREFIX}_4.h5", 4)
    with pytest.raises(DataError, match=r"net_4\.h5 exists and was not written for"):
        WrittenFiles().check(settings, begun.folder, begun)


def test_a_seed_among_the_networks_at_the_prefix_is_continued_another_one_begins_at_0() -> None:
    write_net("seed.h5", 4)
    assert start(init="seed.h5").copy is None
    assert train_job(planner(init="seed.h5"), *NAMES).inputs["init"] == "seed.h5"
    net = write_net(f"{PREFIX}_2.h5", 2)
    begun = start(init=str(net))
    assert (begun.iteration, begun.source) == (2, net)
    assert "init" not in train_job(planner(init=str(net)), *NAMES).inputs


def test_the_curve_in_a_file_of_its_own_tells_the_iteration() -> None:
    write_net(f"{PREFIX}_current.h5", 0)
    with h5py.File(f"{PREFIX}_current.h5", "w") as file:
        file["conv1/group_type"] = "edge"
    with h5py.File(f"{PREFIX}_statistics_current.h5", "w") as file:
        file["test/it"] = [2, 4]
    begun = start()
    resumption.begin(begun)

    assert begun.iteration == 4
    assert start().iteration == 4


@pytest.mark.parametrize("values", [{}, {"out_type": "affinity", "cost_fn": "auto"}])
def test_a_cost_of_probabilities_needs_outputs_from_0_to_1(values: dict[str, str]) -> None:
    net = Path("networks/N4.znn")
    maps = "3" if values else "2"
    linear = net.read_text().rstrip().removesuffix("size 2") + f"size {maps}\n"
    net.write_text(linear.replace("    ", ""))
    cfg = Path("python/config.cfg")
    cfg.write_text(with_values(cfg.read_text(), {"cost_fn": "binomial_cross_entropy", **values}))
    with pytest.raises(ConfigError, match="'output' of network 'znn_cfg' has function linear. Set"):
        train_job(planner(), *NAMES)
    net.write_text(net.read_text().replace("function linear", "function forward_logistics"))
    assert train_job(planner(), *NAMES).settings.network.cost_fn == "binomial_cross_entropy"


def test_a_network_that_is_later_than_its_curve_is_continued_at_its_own_iteration() -> None:
    for number, other in (("4", "a"), ("5", "b"), ("current", "b")):
        write_net(f"{PREFIX}_{number}.h5", 4)
        with h5py.File(f"{PREFIX}_{number}.h5", "a") as file:
            file["conv1/group_type"] = other
    for name, iteration in (("4", 4), ("5", 5), ("current", 5)):
        assert stored_iteration(Path(f"{PREFIX}_{name}.h5")) == iteration
    begun = start()
    WrittenFiles().check(train_job(planner(), *NAMES).settings, begun.folder, begun)
    resumption.begin(begun)

    assert begun.iteration == 5
    assert begun.copy is not None
    assert stored_iteration(begun.copy) == 5
    Path(f"{PREFIX}_5.h5").unlink()
    assert stored_iteration(Path(f"{PREFIX}_current.h5")) == 4


def test_weights_velocities_curve_and_eta_go_on_from_a_network_of_znn(place: Path) -> None:
    tiny.write_stack(place)
    files = {"prefix": "nets/net", "is_stdio": True}
    data = tiny.dataset(place)
    network = tiny.network(data).with_(net_files=files, num_iter_per_annealing=2)
    folder = place / "run"
    folder.mkdir()

    def trained(iterations: int, *more: str) -> dict[str, Any]:
        settings = training(data, network, iterations)
        train.main(arguments(folder, settings, *more))
        history: dict[str, Any] = json.loads((folder / "training.json").read_text())
        return history

    whole = trained(8)["learning_curve"]
    net = Path(shutil.copy("nets/net_4.h5", place / "foreign.h5"))
    shutil.rmtree("nets")
    shutil.rmtree(folder)
    folder.mkdir()
    settings = znn_trainings.read_train_settings(training(data, network, 8))
    begun = build_trainer(settings, {}, folder / "w", WeightFiles(resumed=net))
    stored = read_h5(net).layers["conv2"].arrays
    weight = begun.module.convolutions["conv2"].weight  # type: ignore[union-attr,index]
    torch.testing.assert_close(weight.data, torch_filters(stored["filters"]))
    velocity = begun.optimizer.state[weight]["velocity"]
    torch.testing.assert_close(velocity, torch_filters(stored["momentum_vol"]))
    assert (begun.begun, begun.optimizer.param_groups[0]["steps"]) == (4, 4)

    history = trained(8, "--resumed", str(net))
    assert history["iterations_this_run"] == 4
    assert history["learning_curve"]["train"]["it"] == whole["train"]["it"]
    assert history["learning_curve"]["train"]["err"] == pytest.approx(whole["train"]["err"])
    assert history["learning_curve"]["test"]["it"] == whole["test"]["it"]
    assert sorted(path.name for path in Path("nets").iterdir()) == ["net_8.h5", "net_current.h5"]
    assert state_files(next((folder / "work").iterdir()))
