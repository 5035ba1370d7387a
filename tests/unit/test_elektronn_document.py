"""What ELEKTRONN's documentation of its examples prints and states, step by step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import elektronn
import tiny_digits as digits
import tiny_elektronn as tiny
import train
from built_networks import built
from retrace.config import datasets, networks
from retrace.config.elektronn_network import ElektronnNetworkFile
from retrace.elektronn.cfg import read_elektronn_config
from retrace.elektronn.describe import at_input
from retrace.elektronn.layers import dropout_of
from retrace.elektronn.translate import Translation, translate
from retrace.training import cube_batches
from tiny_training import arguments, training
from volume_datasets import load_volumes

pytestmark = pytest.mark.usefixtures("tiny_threads")

PRINTED = """\
Selected patch-size for CNN input: Input: [26, 26]
Layer/Fragment sizes:	[[12, 5], [12, 5]]
Unpooled Layer sizes:	[[24, 10], [24, 10]]
Receptive fields:	[[4, 10], [4, 10]]
Strides:		[[2, 4], [2, 4]]
Overlap:		[[2, 6], [2, 6]]
Offset:		[5.0, 5.0].
Input shape   =  (50, 1, 26, 26) ; This is a 2 dimensional NN
2DConv: input= (50, 1, 26, 26) 	filter= (16, 1, 3, 3)
Output = (50, 16, 12, 12) Dropout OFF, Act: relu pool: max
Computational Cost: 4.1 Mega Ops
2DConv: input= (50, 16, 12, 12) 	filter= (32, 16, 3, 3)
Output = (50, 32, 5, 5) Dropout OFF, Act: relu pool: max
Computational Cost: 23.0 Mega Ops
PerceptronLayer( #Inputs = 800 #Outputs = 300 )
Computational Cost: 12.0 Mega Ops
PerceptronLayer( #Inputs = 300 #Outputs = 300 )
Computational Cost: 4.5 Mega Ops
PerceptronLayer( #Inputs = 300 #Outputs = 10 )
Computational Cost: 150.0 kilo Ops
Computational Cost: 43.8 Mega Ops
Total Count of trainable Parameters: 338410
"""
"""Printed before the training of MNIST_CNN_warp_config.py."""
NEURO = """\
save_name = 'neuro_3d'
n_dim = 3
filters = [[4,4,1],[3,3,1],[3,3,3],[3,3,3],[2,2,1]]
pool    = [[2,2,1],[2,2,1],[1,1,1],[1,1,1],[1,1,1]]
nof_filters = [10,20,40,40,40]
desired_input = [127,127,7]
batch_size = 1
n_lab = 2
data_path = '/data/'
label_path = '/data/'
d_files = [('raw_%i.h5'%i, 'raw') for i in range(3)]
l_files = [('barrier_int16_%i.h5'%i, 'lab') for i in range(3)]
valid_cubes = [2,]
grey_augment_channels = [0]
flip_data = True
anisotropic_data = True
warp_on = 0.7
"""


def translated(folder: Path, text: str = NEURO) -> Translation:
    (folder / "config.py").write_text(text)
    return translate(read_elektronn_config(folder / "config.py"), [20, 10, 10])


def test_describe_prints_the_lines_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    elektronn.main(["describe", "cnn_warp"])
    lines = capsys.readouterr().out.splitlines()
    known = dict(line.split(":", 1) for line in lines if re.match(r"[A-Z][^ ]*.*:", line))
    table = iter([line for line in lines if re.match(r"\d ", line)])
    row = ""

    for line in PRINTED.splitlines():
        label, _, value = line.partition(":")
        if label in known and label != "Input":
            assert known[label].strip() == value.strip().rstrip("."), line
        elif line.startswith(("2DConv", "Perceptron")):
            row = next(table)
        for shape in re.findall(r"\(([\d, ]+)\)", line):
            assert shape.replace(", ", "x") in (row or "\n".join(lines)), line
        if units := re.findall(r"#\w+ = (\d+)", line):
            assert f"{units[1]}x{units[0]} " in row, line
        if line.startswith("Output"):
            assert all(word in row for word in ("off", "relu", "max 2x2")), line
        if cost := re.search(r"[\d.]+ \w+ Ops", line):
            assert cost.group() in (row if "43.8" not in line else lines[-1]), line
    assert lines[-1].endswith("Total count of trainable parameters: 338410")
    assert known["Input"].strip() == "[26, 26]"
    assert sum(line.startswith("Not centred") for line in lines) == 2


def test_the_design_of_the_network_for_barriers(tmp_path: Path) -> None:
    content = ElektronnNetworkFile.model_validate(translated(tmp_path).network)
    architecture = at_input("neuro_3d", content)
    sizes = architecture.sizes
    assert sizes is not None

    fields, strides = ([axis[-1] for axis in part] for part in (sizes.fields, sizes.strides))
    assert fields == [5, 31, 31]  # the document's 7 along z is a mistake
    assert sizes.output == [3, 25, 25] and np.prod(sizes.output) == 1875
    assert strides == [1, 4, 4]
    assert sum(architecture.parameters()) == 73392  # its "70k"
    along_z = [layer.filter[0] for layer in architecture.convolutions]
    assert along_z == [1, 1, 3, 3, 1, 1]  # partially 2-D


def test_the_training_data_options_of_the_document(tmp_path: Path) -> None:
    translation = translated(tmp_path)
    network, dataset = translation.network, translation.dataset
    assert dataset is not None

    assert (dataset["train"], dataset["validation"]) == (["cube_0", "cube_1"], ["cube_2"])
    settings = ElektronnNetworkFile.model_validate(network)
    assert settings.grey_augment_channels == (0,)
    assert settings.flip_data is True and settings.warp_on == 0.7
    assert network["desired_input"] == [7, 127, 127]
    changed = NEURO + "grey_augment_channels=[]; flip_data=False; anisotropic_data=False\n"
    other = translated(tmp_path, changed).network
    assert (other["grey_augment_channels"], other["flip_data"]) == ([], False)
    assert other["anisotropic_data"] is False


def test_the_registration_picture_shows_labels_on_their_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_cubes(tmp_path)
    tiny.mark(tmp_path)
    drawn: list[Any] = []
    draw = cube_batches.registration_picture

    def keep(image: np.ndarray, labels: np.ndarray, path: Path) -> Path:
        drawn.extend([image, labels])
        return draw(image, labels, path)

    monkeypatch.setattr(cube_batches, "registration_picture", keep)
    sampler = tiny.batches(tmp_path, grey_augment_channels=[])
    sampler.draw(0, warp=False, path=tmp_path / "debug_batch.png")
    image, labels = drawn
    known = labels >= 0

    inside = [n - 2 * lead for n, lead in zip(image.shape, sampler.lead, strict=True)]
    assert known.sum() == np.prod(inside)  # the offset around it has no labels
    np.testing.assert_array_equal((image[known] * 255).round() % 2, labels[known])
    assert (tmp_path / "debug_batch.png").is_file()


FLAT: dict[str, Any] = {
    "n_dim": 2,
    "desired_input": [19, 19],
    "filters": [[4, 4], [3, 3]],
    "pool": [[2, 2], [1, 1]],
}


def test_sections_of_cubes_train_a_2_d_network(tmp_path: Path) -> None:
    tiny.write_cubes(tmp_path)
    train.main(arguments(tmp_path, training(tiny.dataset(tmp_path), tiny.network(**FLAT), 2)))

    assert (tmp_path / "model.safetensors").is_file()


def test_isotropic_cubes_are_cut_along_all_planes(tmp_path: Path) -> None:
    """With anisotropic data along x, y only; labels stay on their voxels, also when warped."""
    large = (24, 22, 24)
    tiny.write_cubes(tmp_path, labelled=large)
    tiny.mark(tmp_path, labelled=large)
    planes = {}
    for anisotropic in (True, False):
        sampler = tiny.batches(
            tmp_path, **FLAT, anisotropic_data=anisotropic, grey_augment_channels=[]
        )
        volume = sampler.train.sampler.volumes[0]
        turns = (sampler._orientation(np.random.default_rng(n), volume) for n in range(30))
        planes[anisotropic] = {turned.order.index(0) for turned in turns}
        for number in range(12):
            batch = sampler.batch(number, warp=number % 2)
            image = (batch["input"][0, 0, 0] * 255).round().long()
            centre = image[4:15:2, 4:15:2][: batch["target"].shape[2], : batch["target"].shape[3]]
            known = batch["target"][0, 0] >= 0
            assert known.any()
            assert (centre % 2)[known].equal(batch["target"][0, 0][known])
    assert planes == {True: {0}, False: {0, 1, 2}}


def test_images_of_different_shapes_are_cubes_of_one_section(tmp_path: Path) -> None:
    volumes = {}
    for index, labelled in enumerate([(20, 32, 1), (40, 24, 1)]):
        raw, labels = tiny.cube(index, labelled)
        for name, key, values in (("raw", "raw", raw[:, :, 2:3]), ("barrier", "lab", labels)):
            with h5py.File(tmp_path / f"{name}_{index}.h5", "w") as file:
                file[key] = values
        source = tiny_source(tmp_path, index)
        volumes[f"image_{index}"] = source
    content = {"name": "cubes", "voxel_size_nm": tiny.VOXEL_SIZE_NM, "volumes": volumes}
    content |= {"train": ["image_0"], "validation": ["image_1"], "test": []}
    (tmp_path / "cubes.yaml").write_text(json.dumps(content))
    data = load_volumes(tmp_path / "cubes.yaml")
    train.main(arguments(tmp_path, training(data, tiny.network(**FLAT), 2)))

    rows = json.loads((tmp_path / "training.json").read_text())["learning_curve"]
    assert all("validation_error" in row for row in rows)


def tiny_source(folder: Path, index: int) -> dict[str, Any]:
    """A volume of files in ELEKTRONN's layout."""
    raw = {"path": str(folder / f"raw_{index}.h5"), "array": "raw", "axes": "xyz"}
    labels = {"path": str(folder / f"barrier_{index}.h5"), "array": "lab", "axes": "xyz"}
    return {"raw": raw, "labels": {**labels, "objects": "classes"}, "auto_crop": "even"}


def test_labels_that_no_output_reaches_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image is two voxels larger than the labels, and the network needs four."""
    tiny.write_cubes(tmp_path, margin=2)
    tiny.batches(tmp_path)
    text = capsys.readouterr().out

    usable = (20 * 18) / (24 * 22)
    assert f"cube_0: {100 * (1 - usable):.0f} % of the labelled voxels are not trained on" in text
    assert "[1, 4, 4] voxels (z, y, x) on each side" in text
    tiny.write_cubes(tmp_path)
    tiny.batches(tmp_path)
    assert "not trained on" not in capsys.readouterr().out


def test_nothing_is_dropped_while_it_is_measured(tmp_path: Path) -> None:
    """The document sets the rates to 0 while estimating the performance, and back afterwards."""
    data = digits.dataset(tmp_path)
    module = built(digits.network(data, dropout_rates=[0.5, 0.5]))
    batch = torch.rand(4, 1, 10, 10)
    trained, again = (module(batch)["classes"] for _ in range(2))
    module.eval()
    measured, too = (module(batch)["classes"] for _ in range(2))

    assert not torch.equal(trained, again)
    assert torch.equal(measured, too)


def test_dropout_as_the_document_suggests_it() -> None:
    """`enable_dropout=True`: 0.5 in all layers but the last; `force_no_dropout`: 0 in a list."""
    data = datasets.load_dataset("mnist")
    plain = networks.load_network("standalone")
    everywhere = ElektronnNetworkFile.model_validate({**plain.plain(), "dropout_rates": 0.5})
    assert dropout_of("standalone", everywhere, 5) == [0.5, 0.5, 0.5, 0.5, 0.0]
    shipped = networks.network_for("standalone_dropout", data)
    assert list(shipped.dropout_rates) == [0, 0, 0.5, 0.5, 0]
    assert shipped.shared_dropout_mask
