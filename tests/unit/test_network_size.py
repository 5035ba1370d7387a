"""Networks are counted before they are built: from settings, and from files of weights."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from hostile_networks import LARGE, SETTINGS, TRAITS, resolve
from retrace.checkpoints.safetensors import read_metadata, save_model
from retrace.config.alignment_model import DefectDetector
from retrace.config.any_network import stored_network
from retrace.config.networks import network_by_name
from retrace.config.yaml_files import names
from retrace.errors import ConfigError
from retrace.limits import LAYERS, WEIGHTS
from retrace.networks import build_network
from retrace.networks.defect_unet import DefectNet
from retrace.znn.net import read_net


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", names("networks"))
def test_weights_are_counted_as_they_are_built(name: str) -> None:
    network = network_by_name(name, TRAITS.voxel_size_nm, example_classes=10)
    layers = list(network.weighted_layers())
    module = build_network(network, device="meta")
    decoder = getattr(module, "decoder", None)  # its weights are the encoder's
    own = weights(module) - (weights(decoder) if decoder is not None else 0)

    counted = sum(layer.weights for layer in layers)
    assert own - 100 <= counted <= 1.01 * own  # of a cost volume, one more factor for each level
    assert 10 * counted < WEIGHTS and 2 * len(layers) < LAYERS


@pytest.mark.parametrize("name", SETTINGS)
def test_a_network_that_no_machine_holds_is_refused(name: str) -> None:
    network, changes, message = SETTINGS[name]
    tracemalloc.start()
    with pytest.raises(ConfigError, match=message) as error:
        resolve(network, changes)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert most < 2**28


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes a\ntype input\nsize 1000000000\n", r"a\.znn:1: node 'a' has 1000000000 feature"),
        ("".join(f"nodes n{n}\ntype input\nsize 1\n" for n in range(20_000)), "20000 nodes and ed"),
        ("nodes a\ntype input\nsize 1\nedges e\ntype conv\ninput a\noutput a\nsize 1,1,10000000\n",
         "each from 1 to 1000000"),
    ],
)  # fmt: skip
def test_a_znn_file_of_too_much_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.znn"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        read_net(path)


def test_weights_that_state_a_network_of_too_much(tmp_path: Path) -> None:
    network = network_by_name("mtlsd", TRAITS.voxel_size_nm)
    plain = network.complete(deep=True).plain()
    path = save_model(tmp_path / "a.safetensors", nn.Linear(1, 1), {"network": plain})
    assert stored_network(read_metadata(path)["network"]) == network
    for changed in (
        {"fmaps": LARGE},
        {"downsample": [[1, 1, 1]] * 10**5, "fmap_factor": 1},
        {"input_channels": LARGE},
    ):
        save_model(path, nn.Linear(1, 1), {"network": {**plain, **changed}})
        with pytest.raises(ConfigError, match="allowed|which are allowed"):
            stored_network(read_metadata(path)["network"])


@pytest.mark.parametrize(
    "activation", ["maxout 0", "maxout x", "maxout -1", "maxout " + "9" * 5000]
)
def test_stored_layers_of_an_impossible_activation(activation: str) -> None:
    plain = network_by_name("mlp", None, example_classes=10).complete(deep=True).plain()
    plain["architecture"]["layers"][0]["activation"] = activation

    with pytest.raises(ConfigError, match="activation_func"):
        stored_network(json.loads(json.dumps(plain)))


def test_stored_settings_of_impossible_values() -> None:
    plain = (
        network_by_name("cnn", TRAITS.voxel_size_nm, example_classes=10).complete(deep=True).plain()
    )
    with pytest.raises(ConfigError, match="LR_decay"):
        stored_network({**plain, "LR_decay": "9" * 5000})
    plain["architecture"]["layers"][0]["pool"] = [0, 1]
    with pytest.raises(ConfigError, match="maps, filter and pool of a layer are from 1"):
        stored_network(json.loads(json.dumps(plain)))


def test_the_detector_of_defects_is_counted() -> None:
    with pytest.raises(ConfigError, match="alignment: defects: fmaps has 1000000000"):
        DefectDetector(fmaps=LARGE)
    with pytest.raises(ConfigError, match="weights; allowed"):
        DefectDetector(fmaps=1000)
    with torch.device("meta"):
        assert weights(DefectNet(DefectDetector().fmaps)) < WEIGHTS
