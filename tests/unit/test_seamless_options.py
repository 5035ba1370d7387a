"""The options of SEAMLeSS's programs: typed, in files of networks and datasets, in --config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

import align
import seamless
import tiny_seamless as tiny
from built_networks import built
from retrace.alignment.pairs import PreparedStack
from retrace.alignment.stack_files import Stack, StackDataset
from retrace.checkpoints.safetensors import save_model
from retrace.config.command_line_values import read_config
from retrace.config.datasets import load_dataset
from retrace.config.networks import load_network, network_for
from retrace.config.seamless_options import TRAIN
from retrace.config.seamless_programs import FLAGS, SAME_NAME, layer_address
from retrace.errors import ConfigError, DataError
from retrace.planning.experiment import Planner
from retrace.planning.pack import packed_files
from retrace.storage.precomputed_writer import write_layer
from run_config import run_config

README = (
    "train --state_archive pt/SOME_ARCHIVE.pt --size 8 --lambda1 2 --lambda2 0.04 --lambda3 0 "
    "--lambda4 5 --lambda5 0 --mask_smooth_radius 75 --mask_neighborhood_radius 75 --lr 0.0003 "
    "--trunc 0 --fine_tuning --hm --padding 0 --vis_interval 5 --lambda6 1 fine_tune_example"
)
"""The command of the README, after `python3 train.py`."""
pytestmark = pytest.mark.usefixtures("tiny_threads")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the dataset `slices` and the network `tiny`."""
    monkeypatch.chdir(tmp_path)
    tiny.write_configuration(tmp_path)
    return tmp_path


def typed(command: str) -> None:
    """One command of seamless.py."""
    seamless.main(command.split())


def resolved(name: str) -> dict[str, Any]:
    """A network as it is trained, with its defaults."""
    network: dict[str, Any] = network_for(name, load_dataset("slices")).complete(deep=True).plain()
    return network


def variant(place: Path, **changes: Any) -> Path:
    """The file of a network `mine` that extends `tiny`."""
    path = place / "config/networks/mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "extends": "tiny", **changes}))
    return path


# ---------------------------------------------------------------- train.py


def test_the_command_of_the_readme_is_typed_as_it_is(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(README)

    network = resolved("fine_tune_example")
    assert {name: network[name] for name in network if name.startswith("lambda")} == {
        **{"lambda1": 2, "lambda2": 0.04, "lambda3": 0, "lambda4": 5, "lambda5": 0, "lambda6": 1},
        "lambda_known": 0,
    }
    assert (network["height"], network["trunc"], network["lr"]) == (8, 0, 0.0003)
    assert (network["mask_smooth_radius"], network["mask_neighborhood_radius"]) == (75, 75)
    assert network["fine_tuning"] is True
    assert network["contrast"] == {"method": "equalise", "radius_px": 42}
    assert network["state_archive"] == "pt/SOME_ARCHIVE.pt"
    assert network["composition"] == "additive"  # archives of 2018
    assert network["vis_interval"] == 5
    printed = capsys.readouterr().out
    assert "train_DATASET_fine_tune_example --config run=fine_tune_example" in printed


def test_options_that_are_not_typed_are_those_of_the_program(place: Path) -> None:
    typed("train scratch")

    network = resolved("scratch")
    assert (network["height"], network["trunc"], network["lr"]) == (5, None, 2e-4)
    assert [network[f"lambda{n}"] for n in range(1, 7)] == [0.1, 0.3, 1e-5, 10, 0, 0]
    assert network["augment"]["jitter_px"] == 2**4
    assert network["contrast"]["radius_px"] == 85  # without --hm, mip 2


def test_numbers_are_typed_as_people_write_them(place: Path) -> None:
    typed("train --lr 3e-4 --lambda3 1e-5 --num_epochs 1e3 --state_archive 2024_01 mine")

    network = resolved("mine")
    assert (network["lr"], network["lambda3"], network["epochs"]) == (3e-4, 1e-5, 1000)
    assert network["state_archive"] == "2024_01"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --lamda1 1 mine", "no option '--lamda1'; did you mean '--lambda1'"),
        ("train --lambda 1 mine", "no option '--lambda'; did you mean"),
        ("gen_stack --source a/b --stack_heigth=3 mine", "did you mean '--stack_height'"),
        ("train --fine_tuning True mine", "'mine' is left over: a word before it stands where"),
        ("train --size 4 --trunc 4 mine", "trunc: 4 is no level of a pyramid of `height: 4`; .* 3"),
        ("train --size 3 --skip 3 mine", "skip: 3 leaves no level .* from 0 to 2"),
    ],
)
def test_typing_errors_are_refused_by_name(place: Path, command: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(command)
    assert not Path("config/networks/mine.yaml").exists()


def test_a_name_is_used_once(place: Path) -> None:
    typed("train --lambda1 2 mine")
    before = Path("config/networks/mine.yaml").read_text()
    typed("train --lambda1=2 mine")

    with pytest.raises(ConfigError, match="not overwritten as in SEAMLeSS"):
        typed("train --lambda1 3 mine")
    with pytest.raises(ConfigError, match="there is a network 'seamless' with other settings"):
        typed("train seamless")

    assert yaml.safe_load(Path("config/networks/mine.yaml").read_text()) == yaml.safe_load(before)


def test_every_option_is_listed_with_its_purpose(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(program: str) -> set[str]:
        with pytest.raises(SystemExit):
            typed(f"{program} -h")
        return set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.M))

    assert listed("train") == {*SAME_NAME, *TRAIN}
    of_stacks = {"count", "source", "mip", "stack_height", "dim", "coords", "mask", "check_mask"}
    of_stacks |= {"test", "no_split", *(f"{axis}{end}" for axis in "xyz" for end in "se")}
    assert of_stacks <= listed("gen_stack")


@pytest.mark.parametrize("name", [n for n, alias in TRAIN.items() if alias.refused])
def test_an_option_without_a_counterpart_is_refused_by_name(place: Path, name: str) -> None:
    value = "" if name in FLAGS else " 1"
    with pytest.raises(ConfigError, match=rf"--{name}: .{{15,}}; leave it out"):
        typed(f"train --{name}{value} mine")

    variant(place, **{name: True})
    with pytest.raises(ConfigError, match=rf"mine.yaml: {name}: .{{15,}}"):
        load_network("mine")


COUNTERPARTS: list[tuple[str, Any, str, Any]] = [
    ("size", 3, "height", 3),
    ("k", 5, "kernel", 5),
    ("num_epochs", 7, "epochs", 7),
    ("it", 7, "epochs", 7),
    ("penalty", "tv", "smoothness_penalty_type", "tv"),
    ("dim", 64, "crop", 64),
    ("unflow", 0.5, "lambda6", 0.5),
    ("hm", True, "contrast.radius_px", 42),
    ("hm", False, "contrast.radius_px", 85),
    ("no_jitter", True, "augment.jitter_px", 0),
    ("no_jitter", True, "augment.rotation", 0),
    ("skip_sample_aug", True, "augment.input", False),
    ("folds_only", True, "fold_probability", 1.0),
    ("padding", 0, "crop", 32),
    ("similarity_penalty_type", "mse", "crop", 32),
    ("num_targets", 1, "align.targets", 1),
    *((name, 0.5, name, 0.5) for name in ("lambda1", "lr", "blank_var_threshold")),
    *((name, 3, name, 3) for name in ("fall_time", "mask_smooth_radius", "vis_interval")),
    ("mask_neighborhood_radius", 9, "mask_neighborhood_radius", 9),
    ("fine_tuning_lr_factor", 0.1, "fine_tuning_lr_factor", 0.1),
    ("smoothness_penalty_type", "lap", "smoothness_penalty_type", "lap"),
    ("state_archive", "a.pt", "state_archive", "a.pt"),
    ("trunc", 0, "trunc", 0),
    ("skip", 0, "skip", 0),
    ("fine_tuning", True, "fine_tuning", True),
]


@pytest.mark.parametrize(("name", "value", "here", "expected"), COUNTERPARTS)
def test_a_network_takes_the_names_of_train(
    place: Path, name: str, value: Any, here: str, expected: Any
) -> None:
    variant(place, **{name: value})

    found: Any = resolved("mine")
    for key in here.split("."):
        found = found[key]
    assert found == expected
    assert type(found) is type(expected)


def test_every_option_of_train_is_in_these_tests() -> None:
    tested = {name for name, *_ in COUNTERPARTS} | {f"lambda{n}" for n in range(1, 7)}

    assert {*SAME_NAME, *(n for n, alias in TRAIN.items() if not alias.refused)} <= tested


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 3, "height": 4}, "size sets height to 3, and height sets it to 4; keep one"),
        ({"penalty": "tv", "smoothness_penalty_type": "lap"}, "penalty sets smoothness_penalty_t"),
        ({"num_epochs": 3, "it": 4}, "num_epochs sets epochs to 3, and it sets it to 4"),
        ({"hm": True, "contrast": {"radius_px": 20}}, "hm sets contrast.radius_px to 42"),
        ({"no_jitter": True, "augment": {"jitter_px": 3}}, "no_jitter sets augment.jitter_px to 0"),
        ({"vis_interval": 3, "snapshot_every": 4}, "vis_interval .in stacks. and snapshot_every"),
        ({"padding": 128}, "padding: 128 is not allowed; sections are not padded"),
        ({"similarity_penalty_type": "ncc"}, "'ncc' is not allowed; no other similarity"),
        ({"num_targets": 3}, "to align to several sections set `align: targets`"),
        ({"hm": 1}, "hm: 1 is not allowed; give true"),
        ({"folds_only": "yes"}, "folds_only: 'yes' is not allowed; give true or false"),
    ],
)
def test_contradictions_are_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    variant(place, **changes)

    with pytest.raises(ConfigError, match=message):
        load_network("mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunc": 2}, "network 'mine': trunc: 2 is no level of a pyramid of `height: 2`"),
        ({"topskips": 1, "trunc": 1}, "no level of .* and `topskips: 1`; give .* to 0, the coar"),
        ({"topskips": 2}, "topskips: 2 leaves no level .* from 0 to 1"),
        ({"skip": 2}, "skip: 2 leaves no level .* from 0 to 1"),
    ],
)
def test_levels_that_a_pyramid_lacks_are_refused(
    place: Path, changes: dict[str, int], message: str
) -> None:
    variant(place, extends="tiny", **changes)
    with pytest.raises(ConfigError, match=message):
        resolved("mine")


def test_two_names_with_one_value_agree(place: Path) -> None:
    variant(place, size=3, height=3)

    assert resolved("mine")["height"] == 3


def test_the_state_archive_is_where_a_training_starts(place: Path) -> None:
    variant(place, state_archive="pt/a.pt")

    assert Planner(place, run_config()).init_of("slices", "mine") == "pt/a.pt"
    missing = Planner(place, run_config()).missing_file("pt/a.pt")
    assert "`state_archive: pt/a.pt` of a network does not exist" in str(missing)
    with pytest.raises(ConfigError, match="which is not packed; leave it out and name the file"):
        packed_files(Planner(place, run_config()), "slices", "mine")
    with pytest.raises(ConfigError, match="starts from its `state_archive: pt/a.pt`, and `init`"):
        Planner(place, run_config(init={"mine": "b.pt"})).init_of("slices", "mine")


def test_the_configuration_takes_the_names_too() -> None:
    config = read_config([], ["state_archive=pt/a.pt", "num_epochs=3"])

    assert (config.init, config.epochs) == ("pt/a.pt", 3)
    with pytest.raises(ConfigError, match="state_archive sets init to 'a', and init sets it to"):
        read_config([], ["state_archive=a", "init=b"])


def test_the_neighbourhood_of_defects_is_that_of_the_network() -> None:
    stack = tiny.stack()
    masks = torch.zeros_like(stack.masks)
    masks[:, 20, 20] = 2
    given = Stack(stack.name, stack.images, masks, stack.fields)

    plain, near = (PreparedStack.of(given, None, near_px=px) for px in (None, 4))

    assert [int((plain.masks == label).sum()) for label in (1, 2)] == [0, 4]
    assert [int((near.masks == label).sum()) for label in (1, 2)] == [4 * (9 * 9 - 1), 4]


def test_pictures_are_drawn_after_so_many_stacks(tmp_path: Path) -> None:
    stacks = tiny.write_stacks(tmp_path / "stacks.h5")  # 3 pairs, 2 at once: 2 iterations a stack
    arguments = ["train", "--settings", json.dumps(tiny.training(iterations=5, vis_interval=1))]
    for name in ("work", "runs"):
        arguments += [f"--{name}", str(tmp_path / name)]
    outputs = ["--output", tmp_path / "m.safetensors", "--history", tmp_path / "t.json"]
    align.main([*arguments, *map(str, outputs), "--stacks", str(stacks)])

    drawn = sorted(path.name[:9] for path in tmp_path.glob("work/*/pictures/*_stack.gif"))
    assert drawn == [f"{iteration:09d}" for iteration in (1, 2, 4, 5)]  # and first and last


# ---------------------------------------------------------------- the other programs


@pytest.fixture
def layer(place: Path) -> Path:
    values = np.random.default_rng(0).integers(40, 255, (12, 96, 96), np.uint8)
    write_layer(place / "layer", values, (40, 8, 8), (5, 16, 32))
    return place / "layer"


def test_gen_stack_of_the_readme_is_typed_as_it_is(place: Path) -> None:
    typed("gen_stack --count 100 --source basil_v0/raw_image --voxel-size-nm 40 4 4 basil_v0")

    content = yaml.safe_load(Path("config/datasets/basil_v0.yaml").read_text())
    assert content["volumes"]["sections"]["raw"]["path"] == "gs://basil_v0/raw_image"
    stacks = content["alignment"]["stacks"]["mip5"]
    assert [stacks[k] for k in ("count", "height", "side", "mip")] == [100, 50, 1152, 5]


def test_gen_stack_reads_layers_and_files_of_this_machine(layer: Path) -> None:
    assert layer_address("layer") == f"file://{layer}"
    assert layer_address("./local.h5") == "./local.h5"
    assert layer_address("basil_v0/raw_image") == "gs://basil_v0/raw_image"


def test_every_option_of_gen_stack_reaches_the_dataset(layer: Path) -> None:
    Path("coords.txt").write_text("[]")
    typed(
        f"gen_stack --count 3 --test --mip 0 --stack_height 3 --dim 32 --source file://{layer} "
        f"--zs 6 --ze 14 --xs 40 --xe 100 --coords coords.txt --mask file://{layer} --check_mask "
        "slices_of_mine"
    )
    typed(f"gen_stack --no_split --mip 0 --source file://{layer} whole")

    content = yaml.safe_load(Path("config/datasets/slices_of_mine.yaml").read_text())
    assert content["voxel_size_nm"] == [40, 8, 8]
    assert content["alignment"]["mask"] == {
        **{"path": f"file://{layer}", "mip": 5, "defect_from": 100}
    }
    assert content["alignment"]["stacks"]["mip0"] == {
        **{"mip": 0, "count": 3, "height": 3, "side": 32, "test_count": 3},
        "coordinates": "coords.txt",
        "roi_nm": {"offset": [240, 128, 320], "shape": [320, 768, 480]},
    }
    whole = yaml.safe_load(Path("config/datasets/whole.yaml").read_text())
    assert whole["alignment"]["stacks"]["mip0"]["test_fraction"] == 0
    assert load_dataset("whole").name == "whole"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--check_mask --source file://layer", "there is no mask to check"),
        ("--source file://layer --zs 9 --ze 9", "--ze 9 is not above --zs"),
        ("--source file://nothing", "for a layer out of reach from here give --voxel-size-nm"),
        ("--source a/b --voxel-size-nm 40 4 4 --zs 1", "--ze: the layer is not read"),
    ],
)
def test_boxes_and_layers_that_are_wrong_are_refused(
    layer: Path, options: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(f"gen_stack {options.replace('file://layer', f'file://{layer}')} mine")


def test_a_dataset_takes_the_names_of_gen_stack_and_the_detector(place: Path) -> None:
    content = tiny.SECTIONS | {"name": "named"}
    content["alignment"] = {
        **content["alignment"],
        "stacks": {"main": {"stack_height": 3, "dim": 48, "no_split": True}},
        "defects": {"mask_neighborhood_radius": 9, "sigmoid_threshold": 0.5, "cc_count": 30},
    }
    path = place / "config/datasets/named.yaml"
    path.write_text(yaml.safe_dump(content))

    alignment = load_dataset("named").alignment
    assert (alignment.stacks["main"].height, alignment.stacks["main"].side) == (3, 48)
    assert alignment.stacks["main"].test_fraction == 0
    assert (alignment.defects.near_px, alignment.defects.threshold) == (9, 0.5)
    assert alignment.defects.smallest_px == 30
    content["alignment"]["defects"]["near_px"] = 8
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="mask_neighborhood_radius sets near_px to 9, and near"):
        load_dataset("named")


def test_archives_of_seamless_are_combined_under_their_names(place: Path) -> None:
    for name, count in (("A", 1), ("B", 2)):
        with h5py.File(f"{name}.h5", "w") as file:
            file["main"] = np.full((count, 3, 32, 32), 9, np.uint8)

    typed("combine_h5 NEW A.h5 B.h5")

    data = StackDataset([Path("NEW.h5")])
    assert [(s.name, s.shape) for s in data.sets] == [("A", (1, 3, 32, 32)), ("B", (2, 3, 32, 32))]
    with pytest.raises(ConfigError, match="would both be called 'A_main'"):
        typed("combine_h5 OTHER A.h5 A.h5")
    typed("combine_h5 all_2018.07 A.h5")
    assert Path("all_2018.07.h5").is_file()


def test_the_history_of_a_network_is_printed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"dataset": "d", "network": {"name": "n"}, "iterations": 2, "finished": 0}
    for name, parent in (("first", None), ("second", {"path": "x", "digest": "1"})):
        folder = place / "results/runs" / name
        folder.mkdir(parents=True)
        own = {"name": name, "parent": parent, "archive_digest": "1" if not parent else "2"}
        (folder / "run.json").write_text(json.dumps(record | own))

    typed("nh second")
    printed = capsys.readouterr().out
    typed("net_hist")

    assert [line.split(":")[0] for line in printed.splitlines()[::2]] == ["second", "first"]
    assert "first: d_n" in capsys.readouterr().out


def test_encodings_are_drawn_of_a_section(place: Path) -> None:
    network = tiny.typed(tiny.network())
    model = save_model(place / "m.safetensors", built(network), {"network": network.plain()})
    tiny.write_stacks(place / "stacks.h5")
    command = f"inspect_enc --archive {model} --count 500 --dataset 1 --output enc.png stacks.h5"

    typed(command)

    assert Path("enc.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="--dataset 7: stacks.h5 has numbers 0 to 1"):
        typed(command.replace("--dataset 1", "--dataset 7"))
    with pytest.raises(ConfigError, match="ends in .png"):
        typed(command.replace("enc.png", "enc.jpg"))
    with pytest.raises(DataError, match=r"nothing\.h5"):
        typed(command.replace("stacks.h5", "nothing.h5"))
    with pytest.raises(DataError, match="--archive gone.pt does not exist"):
        typed(f"{command.replace(str(model), 'gone.pt')} --network tiny")
    with pytest.raises(ConfigError, match="--network mtlsd: .* family 'lsd'"):
        typed(f"{command} --network mtlsd")
