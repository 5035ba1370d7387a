"""ELEKTRONN's configuration files: read without being run, translated, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import elektronn
from retrace.config import networks, schema, yaml_files
from retrace.config.dataset_model import DatasetFile
from retrace.config.elektronn_network import ElektronnNetworkFile
from retrace.config.examples_model import ExamplesFile
from retrace.config.network_settings import DatasetTraits
from retrace.elektronn.assignments import read_assignments
from retrace.elektronn.cfg import (
    DATASET,
    DEFAULTS,
    ELSEWHERE,
    NETWORK,
    UNSUPPORTED,
    known_parameters,
    read_elektronn_config,
)
from retrace.elektronn.translate import translate
from retrace.errors import ConfigError, DataError

NEURO = """\
# -*- coding: utf-8 -*-
save_path = "~/CNN_Training/3D/"
param_save_h = 1.0
save_name = 'neuro_3d'
overwrite = True
save_path += save_name + '/'
param_file = None
activation_func = 'relu'
batch_size = 1
dropout_rates = []
n_dim = 3
desired_input = [127,127,7]
filters = [[4,4,1],[3,3,1],[3,3,3],[3,3,3],[2,2,1]]
pool = [[2,2,1],[2,2,1],[1,1,1],[1,1,1],[1,1,1]]
nof_filters = [10,25,40,50,60]
MFP = []
mode = 'img-img'
n_lab = 2
data_path = '/data/'
label_path = '/labels/'
d_files = [('raw_%i.h5'%i, 'raw') for i in range(3)]
l_files = [('barrier_int16_%i.h5'%i, 'lab') for i in range(3)]
del i
valid_cubes = [2,]
warp_on = 0.7
preview_kwargs = dict(export_class=1, max_z_pred=5)
n_steps = 10**12
max_runtime = 2 * 3600
history_freq = [500]
weight_decay = 0.0001
LR_decay = 0.993
SGD_params = dict(LR=0.005, momentum=0.90)
"""
PARAMETERS = """
activation_func anisotropic_data background_processes batch_size border_mode class_weights
cube_prios d_files data_batch_kwargs data_class_name data_load_kwargs data_path desired_input
device downsample_xy dropout_rates example_ignore_threshold filters flip_data
grey_augment_channels history_freq initial_prev_h l_files label_path label_prop_thresh
lazy_labels LR_decay LR_schedule max_runtime MFP MLP_layers mode monitor_batch_size n_dim n_lab
n_steps nof_filters optimizer overwrite param_file param_save_h plot_on pool pooling_mode
pre_process prev_save_h preview_data_path preview_kwargs print_status rnn_layer_kwargs save_name
save_path target upright_x use_example_weights valid_cubes warp_on weight_decay zchxy_order
SGD_params RPROP_params CG_params LBFGS_params Adam_params SSGD_params
"""
"""All that ELEKTRONN 1 has."""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.py"
    path.write_text(text)
    return path


def changed(folder: Path, text: str, size: Any = (20, 10, 10)) -> Any:
    """The shipped file with further lines, translated."""
    return translate(read_elektronn_config(written(folder, NEURO + text)), size)


def test_an_impossible_voxel_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no voxel size"):
        changed(tmp_path, "", (0, 10, 10))


def test_every_parameter_has_its_place() -> None:
    assert sorted(known_parameters()) == sorted(PARAMETERS.split())
    places = [*NETWORK, *DATASET, *ELSEWHERE, *UNSUPPORTED]
    assert len(places) == len(set(places))
    assert set(DEFAULTS) <= set(PARAMETERS.split())


def test_the_shipped_file_becomes_the_network_we_have(tmp_path: Path) -> None:
    translated = changed(tmp_path, "").network
    ours = networks.load_network("neuro3d_file").plain()

    schema.check(ElektronnNetworkFile, translated, "translated")
    for key in ("filters", "pool", "nof_filters", "desired_input", "warp_on", "weight_decay"):
        assert translated[key] == ours[key], key
    assert translated["SGD_params"] == {"LR": 0.005, "momentum": 0.9}
    assert (translated["n_steps"], translated["max_runtime"]) == (10**12, 7200)


def test_its_cubes_become_a_dataset(tmp_path: Path) -> None:
    translated = changed(tmp_path, "cube_prios = [1, 3]\n").dataset

    schema.check(DatasetFile, translated, "translated")
    assert translated["train"] == ["cube_0", "cube_1"]
    assert translated["validation"] == ["cube_2"]
    assert translated["sampling"] == {"probabilities": {"cube_0": 1.0, "cube_1": 3.0}}
    volume = translated["volumes"]["cube_1"]
    assert volume["raw"] == {"path": "/data/raw_1.h5", "array": "raw", "axes": "xyz"}
    assert volume["labels"]["path"] == "/labels/barrier_int16_1.h5"
    assert volume["labels"]["objects"] == "classes"
    assert volume["auto_crop"] == "even"


def test_a_patch_is_chosen_as_by_the_original(tmp_path: Path) -> None:
    translated = changed(tmp_path, "desired_input = [130, 300, 5]\n")

    assert translated.network["desired_input"] == [5, 299, 127]
    assert "[5, 300, 130] does not" in translated.notes["desired_input"]


def test_each_parameter_has_a_note(tmp_path: Path) -> None:
    config = read_elektronn_config(written(tmp_path, NEURO))
    notes = translate(config, [20, 10, 10]).notes

    assert set(config.assigned) - set(notes) == set()
    assert "never deletes" in notes["overwrite"]


def test_channels_become_inputs(tmp_path: Path) -> None:
    for index, channels in enumerate((2, 2, 2)):
        with h5py.File(tmp_path / f"raw_{index}.h5", "w") as file:
            file["raw"] = np.zeros((channels, 4, 4, 3), np.uint8)
    translated = changed(tmp_path, f"data_path = {str(tmp_path)!r}\n")

    assert translated.network["input_channels"] == 2
    volume = translated.dataset["volumes"]["cube_0"]
    assert (volume["raw"]["axes"], volume["raw"]["channel"]) == ("cxyz", 0)
    assert volume["inputs"]["channel_1"]["channel"] == 1
    schema.check(DatasetFile, translated.dataset, "translated")

    with h5py.File(tmp_path / "raw_1.h5", "w") as file:
        file["raw"] = np.zeros((3, 4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match=r"different numbers of channels .*raw_1.h5 3"):
        changed(tmp_path, f"data_path = {str(tmp_path)!r}\n")


def test_previews_are_predicted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "preview.h5", "w") as file:
        for key in ("b", "a"):
            file[key] = np.zeros((4, 4, 3), np.uint8)
    translated = changed(
        tmp_path, f"preview_data_path = {str(tmp_path / 'preview.h5')!r}\n"
    ).dataset

    assert translated["test"] == ["preview_0", "preview_1"]
    assert translated["volumes"]["preview_0"]["raw"]["array"] == "a"


def test_a_missing_preview_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "preview_cubes.h5"
    translated = changed(tmp_path, f"preview_data_path = {str(missing)!r}\n")

    note = translated.notes["preview_data_path"]
    assert f"NO FILE {missing}" in note
    assert "translate again" in note
    assert translated.dataset["test"] == []


@pytest.mark.parametrize(
    ("mode", "extra", "size"),
    [
        (
            "img-scalar",
            "filters=[3,3]; pool=[2,2]; nof_filters=[16,32]; desired_input=28",
            [26, 26],
        ),
        ("vect-scalar", "pass", 676),
    ],
)
def test_the_examples_of_digits(mode: str, extra: str, size: Any, tmp_path: Path) -> None:
    text = f"""
save_name = 'MNIST_example_warp'
mode = {mode!r}
n_dim = 2
MLP_layers = [300, 300]
data_class_name = 'MNISTData'
data_load_kwargs = dict(path=None, convert2image=True, warp_on=True, shift_augment=True)
data_batch_kwargs = dict()
batch_size = 50
desired_input = 28
{extra}
"""
    translated = translate(read_elektronn_config(written(tmp_path, text)))
    schema.check(ElektronnNetworkFile, translated.network, "translated")

    assert translated.dataset is None
    assert translated.network["name"] == "mnist_example_warp"
    assert translated.network["desired_input"] == size
    assert (translated.network["warp_on"], translated.network["shift_augment"]) == (True, True)
    assert translated.network["n_lab"] == 10


DIGITS = """
save_name = 'MNIST_example_warp'
mode = 'vect-scalar'
MLP_layers = [300, 300]
batch_size = 50
data_class_name = 'MNISTData'
"""


def digits(folder: Path, text: str) -> Any:
    """A file for digits as vectors with further lines, translated."""
    return translate(read_elektronn_config(written(folder, DIGITS + text)))


def test_a_given_archive_becomes_a_dataset(tmp_path: Path) -> None:
    options = "data_load_kwargs = dict(path='~/mnist.pkl', convert2image=False)\n"
    translated = digits(tmp_path, options)

    schema.check(ExamplesFile, translated.dataset, "translated")
    archive = translated.dataset["examples"]["archive"]
    assert archive == {"path": str(Path("~/mnist.pkl").expanduser())}
    # without warp_on, MNISTData does not warp
    assert "warp_on" not in translated.network or not translated.network["warp_on"]
    assert translated.network["desired_input"] == 676
    name = translated.dataset["name"]
    assert translated.notes["data_class_name"].endswith(f"train_{name}_mnist_example_warp")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "mode = 'img-scalar'; data_load_kwargs = dict(convert2image=False)",
            "mode 'img-scalar' needs images",
        ),
        ("data_load_kwargs = dict(center=False, convert2image=False)", "always subtracted"),
        ("data_load_kwargs = dict(warpon=True)", "did you mean 'warp_on'"),
        (
            "data_load_kwargs = {'convert2image': False}\ndata_batch_kwargs = {'source': 'valid'}",
            "data_batch_kwargs = .* is not supported",
        ),
    ],
)
def test_options_of_digits_that_would_be_ignored_are_refused(
    line: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        digits(tmp_path, line + "\n")


def test_missing_cubes_and_unused_paths_are_named(tmp_path: Path) -> None:
    notes = changed(tmp_path, f"data_path = {str(tmp_path)!r}\n").notes
    assert f"NO FILE {tmp_path}/raw_0.h5 (3 of 3 are missing)" in notes["data_path"]
    assert "correct `label_path` or `l_files`" in notes["label_path"]

    options = "data_load_kwargs = dict(convert2image=False)\n"
    unused = digits(tmp_path, options + "data_path = '/data/'\n").notes["data_path"]
    assert unused.startswith("not used: there are no d_files")


@pytest.mark.parametrize(
    ("line", "dataset"),
    [
        ("", "neuro_3d_cubes"),
        ("d_files = l_files = []", "DATASET"),
        ("d_files = l_files = []; data_class_name = None", "DATASET"),
    ],
)
def test_the_dataset_of_the_network_is_named(line: str, dataset: str, tmp_path: Path) -> None:
    assert changed(tmp_path, line + "\n").trained_on == dataset


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, NEURO)
    command = ["translate", str(path), "--voxel-size-nm", "20", "10", "10"]
    command += ["--folder", str(tmp_path / "config")]
    elektronn.main(command)
    elektronn.main(command)
    network = yaml_files.read_yaml(tmp_path / "config" / "networks" / "neuro_3d.yaml")

    assert network["nof_filters"] == [10, 25, 40, 50, 60]
    text = capsys.readouterr().out
    assert "neuro_3d_cubes.yaml" in text
    assert "next: snakemake --use-singularity train_neuro_3d_cubes_neuro_3d\n" in text
    elektronn.main(["describe", str(path)])
    assert "trainable parameters: 95717" in capsys.readouterr().out
    path.write_text(NEURO + "batch_size = 2\n")
    with pytest.raises(ConfigError, match="exists with other content"):
        elektronn.main(command)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import os", r"line \d+: `import os`"),
        ("save_path = os.getcwd()", "is not read, because configuration files are not run"),
        ("save_path = __import__('os').getcwd()", "__import__"),
        ("save_path = open('/etc/passwd').read()", "open"),
        ("save_path = (lambda: 1)()", "lambda"),
        ("save_path = [].__class__", "__class__"),
        ("exec('1')", "exec"),
        ("for k in [1]: save_path = 'x'", "for k in"),
        ("n_steps = 10**10**10", "not read"),
        ("n_steps = 10**30", "above 1e"),
        ("save_path = 'x' * 10**9", "not read"),
        ("save_path = '%900000000i' % 1", "not read"),
        ("save_path = [i for i in range(10**9)]", "not read"),
        ("batch_size = unknown_name", "a name without a value in the lines before"),
        ("print 'python 2'", "is not a Python file"),
        ("a, b = 1, 2, 3", "for 3 values"),
    ],
)
def test_configuration_files_are_never_executed(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_elektronn_config(written(tmp_path, NEURO + line + "\n"))


def test_values_that_are_read(tmp_path: Path) -> None:
    text = """
"text at the start is a docstring"
a, (b, c) = 1, [2, 3]
d = {'x': [a + b, c ** 2], 'y': (1.5, None, True)}
e = ['%s_%02i' % (k, n) for k in 'pq' for n in range(2)]
f = d['x'][1] // 2 - -1
g = not f
del k, n
"""
    assignments = read_assignments(written(tmp_path, text))

    assert assignments["d"] == {"x": [3, 9], "y": (1.5, None, True)}
    assert assignments["e"] == ["p_00", "p_01", "q_00", "q_01"]
    assert (assignments["f"], assignments["g"]) == (5, False)
    assert "n" not in assignments


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nof_filter = [1]", "unknown parameter 'nof_filter'; did you mean 'nof_filters'?"),
        ("rnn_layer_kwargs = dict(n_hid=3)", "recurrent layers are not part of retrace"),
        ("lazy_labels = True", "lazy_labels = True is not supported"),
        ("downsample_xy = 2", "downsample_xy = 2 is not supported"),
        ("border_mode = 'mirror'", "border_mode = 'mirror' is not supported"),
        ("target = 'malis'", "families lsd and znn learn affinities"),
        ("target = 'nl'", "target = 'nl'; did you mean 'nll'"),
        ("mode = 'img'", "mode = 'img'; .*allowed: img-img"),
        ("l_files = l_files[0:1]", "is not read"),
        ("l_files = [('a.h5', 'lab')]", "d_files names 3 cubes and l_files 1"),
        ("valid_cubes = [3]", "valid_cubes names cube 3 of 3"),
        ("cube_prios = [1]", "cube_prios has 1 entries for 2 cubes"),
        ("n_lab = None", "give the number of classes"),
        ("data_class_name = ('/x.py', 'Mine')", "other classes would have to be run"),
        ("desired_input = None", "desired_input is None; give the size of a patch"),
        ("desired_input = [-1,127,7]", r"desired_input is \[-1, 127, 7\]; give the size"),
        ("filters = [[4,4]]", r"filters has \[4, 4\], and the network 3 axes"),
    ],
)
def test_untranslatable_settings_are_refused(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(tmp_path, line + "\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("warp_on = 1.7", "warp_on: 1.7 is not allowed; give true or false, or a number from 0"),
        ("SGD_params = dict(lr=0.1)", "SGD_params: unknown key 'lr', allowed: LR, momentum"),
        ("activation_func = 'elu'", "'elu' is not allowed; give relu, tanh, abs, linear, sigmoid"),
        ("class_weights = [1, 3, 2]", "class_weights has 3 entries for 2 classes"),
        ("grey_augment_channels = [0, 1]", r"names channel 1, and the input has 1 \(input_chan"),
    ],
)
def test_values_that_no_network_has_are_refused_with_what_is_allowed(
    line: str, message: str, tmp_path: Path
) -> None:
    traits = DatasetTraits(isotropic=False, labels_are_classes=lambda: True)
    with pytest.raises(ConfigError, match=message):
        networks.resolved(changed(tmp_path, line + "\n").network, traits, "translated")


def test_cubes_need_a_voxel_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --voxel-size-nm Z Y X"):
        changed(tmp_path, "", None)


def test_layers_that_contradict_each_other(tmp_path: Path) -> None:
    from retrace.elektronn.layers import architecture_of

    for line, message in (
        ("pool = [[2,2,1]]", "pool 1; each convolution needs one of both"),
        ("MLP_layers = [10]", "mode img-img has only convolutions"),
        ("activation_func = ['relu', 'tanh']", "activation_func has 2 entries for 5 layers"),
    ):
        with pytest.raises(ConfigError, match=message):
            content = changed(tmp_path, line + "\n").network
            architecture_of("mine", ElektronnNetworkFile.model_validate(content))
