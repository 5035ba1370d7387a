"""The TensorFlow checkpoints that Sheridan et al. 2023 published, as weights of `retrace` networks.

Source of variable names and layouts: funkey/mala, `networks/unet.py`; TensorFlow 1, `tf.layers`.
The scope (`setup01` ...) differs between files and is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from retrace.checkpoints.tensorflow import (
    Bundle,
    find_checkpoint,
    open_bundle,
    write_tensor_bundle,
)
from retrace.config.network_settings import NetworkSettings
from retrace.errors import DataError
from retrace.networks import build_network
from retrace.storage.store_check import check_folder

KINDS = {"kernel": "weight", "bias": "bias"}
MOMENTS = {"Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
"""Slots of TensorFlow's Adam and their names in torch."""
HEADS = {"affs_0": "affs", "embedding_0": "lsds", "lsds_0": "lsds"}
ITERATION = "gunpowder/iteration"
SECOND_OPTIMIZER = "malis_optimizer"
LAYERS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"unet_layer_(\d+)_(left|right)_(\d+)", lambda m: f"{m[2]}.{m[1]}.{m[3]}"),
    (r"unet_up_\d+_to_(\d+)", lambda m: f"up.{m[1]}"),
    (r"(affs_0|embedding_0|lsds_0)", lambda m: f"heads.{HEADS[m[1]]}"),
)


@dataclass(frozen=True)
class Published:
    """A published checkpoint with the parameter names and layouts of our U-Net."""

    source: Path
    """Prefix of its files."""
    iteration: int
    weights: Mapping[str, Tensor]
    """By parameter name."""
    moments: Mapping[str, Mapping[str, Tensor]]
    """Adam's moments by parameter name; empty where they are not stored."""


def parameter_name(layer: str, kind: str) -> str | None:
    """`unet_layer_1_left_0`, `kernel` -> `left.1.0.weight`; None for other variables."""
    for pattern, name in LAYERS:
        match = re.fullmatch(pattern, layer)
        if match and kind in KINDS:
            return f"{name(match)}.{KINDS[kind]}"
    return None


def to_torch(values: np.ndarray) -> Tensor:
    """A kernel (z, y, x, a, b) in torch's layout (b, a, z, y, x); biases are unchanged.

    (a, b) is (in, out) for a convolution and (out, in) for a transposed one, so both permute in the
    same way. TensorFlow and torch both correlate, so nothing is flipped.
    """
    axes = (4, 3, 0, 1, 2) if values.ndim == 5 else tuple(range(values.ndim))
    return torch.from_numpy(values.transpose(axes).copy())


def variable_name(parameter: str) -> str:
    """`left.1.0.weight` -> `unet_layer_1_left_0/kernel`; the inverse of `parameter_name`."""
    *layer, leaf = parameter.split(".")
    kind = {"weight": "kernel", "bias": "bias"}[leaf]
    if layer[0] == "heads":
        head = "embedding" if layer[1] == "lsds" else layer[1]
        return f"{head}_0/{kind}"
    if layer[0] == "up":
        return f"unet_up_{int(layer[1]) + 1}_to_{layer[1]}/{kind}"
    return f"unet_layer_{layer[1]}_{layer[0]}_{layer[2]}/{kind}"


def to_tensorflow(values: Tensor) -> np.ndarray:
    """A weight (b, a, z, y, x) in TensorFlow's layout (z, y, x, a, b), inverse of `to_torch`."""
    axes = (2, 3, 4, 1, 0) if values.ndim == 5 else tuple(range(values.ndim))
    return values.detach().cpu().numpy().transpose(axes)


def write_published(
    folder: Path,
    module: nn.Module,
    iteration: int,
    *,
    scope: str = "setup01",
    optimizer: torch.optim.Optimizer | None = None,
) -> Path:
    """Writes a checkpoint that the original programs can restore; returns its prefix.

    With `optimizer` (Adam), its moments and powers of the decay rates are written too, so that the
    original can resume training.
    """
    arrays = {ITERATION: np.array([iteration], np.float32)}
    for name, parameter in module.named_parameters():
        variable = f"{scope}/{variable_name(name)}"
        arrays[variable] = to_tensorflow(parameter)
        if optimizer is not None:
            for slot, moment in MOMENTS.items():
                slot_name = f"{scope}/{variable}/{slot}"
                arrays[slot_name] = to_tensorflow(optimizer.state[parameter][moment])
    if optimizer is not None:
        for index, decay in enumerate(optimizer.param_groups[0]["betas"], start=1):
            # TensorFlow multiplies once more, before the first step.
            power = np.float32(decay ** (iteration + 1))
            arrays[f"{scope}/beta{index}_power"] = np.array(power)
    prefix = folder / f"train_net_checkpoint_{iteration}"
    write_tensor_bundle(prefix, arrays)
    return prefix


def read_published(folder: Path) -> Published:
    """The latest checkpoint in `folder`.

    DataError if there is none, if it is damaged, differs from its manifest or is of another kind of
    network, or if the iteration in its name differs from the one inside.
    """
    check_folder(folder)
    prefix, iteration = find_checkpoint(folder)
    bundle = open_bundle(prefix)
    _check_iteration(bundle, iteration)
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name in bundle.entries:
        *_, layer, kind = ["", "", *name.split("/")]
        if parameter := parameter_name(layer, kind):
            weights[parameter] = to_torch(bundle.read(name))
    for name, parameter, moment in _slots(bundle.entries):
        moments.setdefault(parameter, {})[moment] = to_torch(bundle.read(name))
    if not weights:
        raise DataError(
            f"{prefix} holds no network of the LSD family (first names: "
            f"{', '.join(sorted(bundle.entries)[:3])})"
        )
    return Published(prefix, iteration, weights, moments)


def _slots(names: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Adam's slots: variable name, parameter name, moment; those of the last of two optimizers."""
    second = any(SECOND_OPTIMIZER in name for name in names)
    for name in names:
        *_, layer, kind, slot = ["", "", "", *name.split("/")]
        parameter = parameter_name(layer, kind)
        if parameter and slot in MOMENTS and (SECOND_OPTIMIZER in name) == second:
            yield name, parameter, MOMENTS[slot]


def _check_iteration(bundle: Bundle, iteration: int) -> None:
    if ITERATION not in bundle.entries:
        return
    inside = int(bundle.read(ITERATION).ravel()[0])
    if inside != iteration:
        raise DataError(
            f"{bundle.prefix} contains iteration {inside}; its files were renamed or mixed up, "
            "fetch it again"
        )


def load_published(checkpoint: Published, module: nn.Module, name: str) -> None:
    """Fills `module`, built for the network `name`.

    DataError names the first weight that is missing, unknown, or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    stored = {key: tuple(value.shape) for key, value in checkpoint.weights.items()}
    for key in sorted(expected | stored):
        if expected.get(key) != stored.get(key):
            raise DataError(
                f"{checkpoint.source} does not fit network {name!r}: {key} is "
                f"{stored.get(key, 'absent')} there and {expected.get(key, 'absent')} here. It may "
                "be of another dataset or network; the width of the top layers is `fmaps_out`"
            )
    module.load_state_dict(dict(checkpoint.weights))


def published_network(folder: Path | str, network: NetworkSettings) -> tuple[nn.Module, int]:
    """A network with the published weights in `folder`, in evaluation mode, and their iteration.

    `folder`: the checkpoint's files, as `fetch_DATASET_NETWORK_checkpoint` stores them. DataError
    if they are damaged or of another network.
    """
    checkpoint = read_published(Path(folder))
    module: nn.Module = build_network(network)
    load_published(checkpoint, module, network.name)
    return module.eval(), checkpoint.iteration


def load_moments(
    checkpoint: Published, module: nn.Module, optimizer: torch.optim.Optimizer
) -> bool:
    """Sets Adam's moments and step count; False, without changes, if the file has none."""
    parameters = dict(module.named_parameters())
    if set(checkpoint.moments) != set(parameters):
        return False
    for name, parameter in parameters.items():
        moments = checkpoint.moments[name]
        state = {k: torch.empty_like(parameter).copy_(v) for k, v in moments.items()}
        step = torch.tensor(float(checkpoint.iteration), dtype=torch.float32)
        optimizer.state[parameter] = {"step": step.to(parameter.device), **state}
    return True
