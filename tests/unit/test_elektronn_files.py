"""Parameter files of ELEKTRONN, and the programs that read and write them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elektronn
import tiny_elektronn as tiny
from elektronn_modules import IMAGE_TO_SCALAR, build, digits
from retrace.checkpoints.elektronn import (
    load_param,
    load_parameters,
    read_param,
    write_param,
)
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.config.any_network import of_family
from retrace.errors import ConfigError, DataError
from retrace.networks import ElektronnNetwork
from retrace.settings_model import as_json


def test_parameter_files_round_trip(tmp_path: Path) -> None:
    for name, module in {
        "deep": build(3),
        "flat": build(4, n_dim=2, desired_input=19, filters=[4, 3], pool=[2, 1]),
        "digits": digits(5, **IMAGE_TO_SCALAR),
    }.items():
        file = read_param(write_param(tmp_path / f"{name}.param", module))
        other = build_same(module)
        load_param(file, other)
        assert all(
            torch.equal(value, other.state_dict()[key])
            for key, value in module.state_dict().items()
        )
    values = read_values(tmp_path / "deep.param")
    assert values[0] == [(4, 1, 1, 4, 4), (6, 3, 4, 3, 3), (2, 1, 6, 1, 1)]
    assert values[-1] == [(1, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert read_values(tmp_path / "flat.param")[0] == [(4, 1, 4, 4), (6, 4, 3, 3), (2, 6, 1, 1)]
    assert read_values(tmp_path / "digits.param")[0] == [(2, 1, 3, 3), (5,), (10,)]


def build_same(module: ElektronnNetwork) -> ElektronnNetwork:
    """The same layers with other weights."""
    other = ElektronnNetwork(module.architecture, [0.0] * len(module.parts))
    with torch.no_grad():
        for weight in other.parameters():
            weight.fill_(7)
    return other


def read_values(path: Path) -> list[Any]:
    """The arrays in the file, as any program reads them."""
    values = []
    with path.open("rb") as file:
        while file.peek(1):
            values.append(pickle.load(file, encoding="latin1"))
    return values


def test_old_programs_can_read_the_file(tmp_path: Path) -> None:
    """Numpy's modules have the names that versions for Python 2 know."""
    content = write_param(tmp_path / "net.param", build()).read_bytes()

    assert content.startswith(b"\x80\x02")
    assert b"numpy._core" not in content
    assert b"cnumpy.core.multiarray\n_reconstruct" in content


@pytest.mark.realdata
def test_the_file_of_an_auto_encoder_becomes_the_first_layers_of_a_classifier(
    shared_dir: Path,
) -> None:
    file = read_param(shared_dir / "oracles/elektronn/ae_enc.param")
    sizes = {"MLP_layers": [300, 200, 50], "activation_func": "tanh"}
    module = digits(mode="vect-scalar", desired_input=784, **sizes)
    last = module.parts[3].weight.detach().clone()
    lines = load_parameters(file, module)

    assert [weight.shape for weight, _ in file.layers] == [(784, 300), (300, 200), (200, 50)]
    assert len(lines) == 3
    assert torch.equal(module.parts[3].weight, last)
    expected = torch.from_numpy(file.layers[1][0].T.copy())
    assert torch.equal(module.parts[1].weight, expected)
    with pytest.raises(DataError, match="it has 3 layers, this network 4"):
        load_param(file, module)


def test_a_file_of_another_network_changes_nothing(tmp_path: Path) -> None:
    file = read_param(write_param(tmp_path / "net.param", build(1, nof_filters=[4, 7])))
    module = build()
    before = {key: value.clone() for key, value in module.state_dict().items()}

    with pytest.raises(DataError, match=r"layer 1 is \[7, 3, 4, 3, 3\].*\[6, 3, 4, 3, 3\]"):
        load_parameters(file, module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert load_parameters(file, module, 1) == ["layer 0: [4, 1, 1, 4, 4] from net.param"]
    assert not torch.equal(before["layers.0.weight"], module.state_dict()["layers.0.weight"])
    assert torch.equal(before["layers.1.weight"], module.state_dict()["layers.1.weight"])


class Bad:
    """A pickle that runs a program when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch /tmp/retrace-was-here",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[(1,)], Bad(), []], "other pickles than of arrays are refused"),
        ([[(1,)]], "no parameter file of ELEKTRONN"),
        ([[(2, 3)], np.zeros((2, 3), np.float32), []], "truncated or no parameter file"),
        ([[(2, 2)], np.zeros((2, 3)), np.zeros(2), []], "layer 0 is"),
    ],
)
def test_a_file_that_is_no_parameter_file_is_refused(
    values: list[Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.param"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in values))

    with pytest.raises(DataError, match=message):
        read_param(path)
    assert not Path("/tmp/retrace-was-here").exists()


def test_models_and_parameter_files_through_the_program(tmp_path: Path) -> None:
    """A .param becomes a model to predict with, and a trained model a .param."""

    net = tiny.network()
    module = build(9)
    write_param(tmp_path / "in.param", module)
    settings = as_json({"dataset": "cubes", "network": net})
    model, out = tmp_path / "published.safetensors", tmp_path / "out.param"
    elektronn.main(
        [
            "model",
            "--settings",
            settings,
            "--param",
            str(tmp_path / "in.param"),
            "--output",
            str(model),
        ]
    )
    elektronn.main(["network", "--model", str(model), "--output", str(out)])

    assert out.read_bytes() == (tmp_path / "in.param").read_bytes()
    save_model(model, module, {"network": {**net.plain(), "family": "znn"}})
    with pytest.raises(DataError, match="of the family 'znn'"):
        elektronn.main(["network", "--model", str(model), "--output", str(out)])


def test_a_model_of_other_layers_is_refused(tmp_path: Path) -> None:
    net = tiny.network()
    save_model(tmp_path / "model.safetensors", build(), {"network": net})
    other = tiny.network(activation_func="tanh")
    with pytest.raises(DataError, match="with architecture"):
        load_model(tmp_path / "model.safetensors", build(activation_func="tanh"), of_family(other))
    larger = tiny.network(desired_input=[3, 23, 23])
    load_model(tmp_path / "model.safetensors", build(desired_input=[3, 23, 23]), of_family(larger))


def test_profile_adds_a_row_for_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lateral sizes are the valid ones from the fifth on; a second run adds its rows."""
    table = tmp_path / "speed.csv"
    for _ in range(2):
        elektronn.main(["profile", "neuro3d_doc", "--largest", "51", "--output", str(table)])
    head, *rows = [line.split("\t") for line in table.read_text().splitlines()]

    assert head == ["z-shape", "xy-shape", "pixel", "Speed [MPix/s]"]
    sizes = [(int(z), int(xy), int(voxels)) for z, xy, voxels, _ in rows]
    assert sizes[: len(rows) // 2] == sizes[len(rows) // 2 :]
    assert {side for _, side, _ in sizes} == {47, 51}
    assert all(voxels == (z - 4) * (side - 30) ** 2 for z, side, voxels in sizes)
    assert all(float(row[3]) > 0 for row in rows)
    with pytest.raises(ConfigError, match="does not label voxels"):
        elektronn.main(["profile", "mlp"])
