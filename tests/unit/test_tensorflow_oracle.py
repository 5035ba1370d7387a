"""The U-Net against outputs that a TensorFlow graph of the original network computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrace.networks import UNet, build_network

NETWORK = {
    "name": "oracle",
    "family": "lsd",
    "input_channels": 1,
    "fmaps": 6,
    "fmap_factor": 2,
    "downsample": [[2, 2, 2], [2, 2, 2], [3, 3, 3]],
    "heads": [{"name": "affs", "channels": 3}],
}


def torch_name(tensorflow_name: str) -> str:
    """`unet_layer_1_left_0/kernel` -> `left.1.0.weight`, after the scope."""
    layer, kind = tensorflow_name.split("/")
    leaf = {"kernel": "weight", "bias": "bias"}[kind]
    parts = layer.split("_")
    if layer.startswith("unet_layer"):
        return f"{parts[3]}.{parts[2]}.{parts[4]}.{leaf}"
    if layer.startswith("unet_up"):
        return f"up.{parts[4]}.{leaf}"
    return f"heads.{parts[0]}.{leaf}"


def load(unet: UNet, variables: dict[str, np.ndarray]) -> None:
    """Both kernel kinds permute alike: (z, y, x, a, b) -> (b, a, z, y, x)."""
    state = {
        torch_name(name): torch.from_numpy(v.transpose(4, 3, 0, 1, 2) if v.ndim == 5 else v)
        for name, v in variables.items()
    }
    unet.load_state_dict(state)


@pytest.fixture(scope="module")
def step(shared_dir: Path) -> dict[str, np.ndarray]:
    with np.load(shared_dir / "oracles/lsd_tensorflow/one_step.npz") as arrays:
        return dict(arrays)


def test_same_output_as_the_tensorflow_graph(step: dict[str, np.ndarray]) -> None:
    unet = build_network(NETWORK)
    prefix = "after/setup01/"
    load(unet, {k.removeprefix(prefix): v for k, v in step.items() if k.startswith(prefix)})
    raw = torch.from_numpy(step["raw"])[None, None]
    with torch.no_grad():
        ours = unet(raw)["affs"][0].numpy()

    difference = float(np.abs(ours - step["after_out_affs"]).max())
    print(f"largest difference from TensorFlow: {difference:.1e}")
    assert ours.std() > 1e-4  # not constant, so that agreement means something
    assert difference < 2e-6
