"""The checkpoints that Sheridan et al. 2023 published, as weights of our own networks.

Variable names and layouts: funkey/mala `networks/unet.py`, TensorFlow 1 `tf.layers`. The scope
(`setup01` ...) differs from file to file and is ignored; names and shapes come from the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrace.checkpoints.tensorflow import (
    Bundle,
    find_checkpoint,
    open_bundle,
    write_bundle,
)
from retrace.errors import DataError
from retrace.networks import build_network

KINDS = {"kernel": "weight", "bias": "bias"}
MOMENTS = {"Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
"""Slots of TensorFlow's Adam and what torch calls them."""
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
    """A checkpoint in our names: weights, Adam's moments (empty where not stored), iteration."""

    source: Path
    iteration: int
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]


def parameter_name(layer: str, kind: str) -> str | None:
    """`unet_layer_1_left_0`, `kernel` -> `left.1.0.weight`; None for what is no weight."""
    for pattern, name in LAYERS:
        match = re.fullmatch(pattern, layer)
        if match and kind in KINDS:
            return f"{name(match)}.{KINDS[kind]}"
    return None


def to_torch(values: np.ndarray) -> Tensor:
    """TensorFlow's layout to torch's: kernels (z, y, x, a, b) -> (b, a, z, y, x), biases as is.

    For a convolution (a, b) is (in, out), for a transposed one (out, in): both permute alike. Both
    programs cross-correlate, so nothing is flipped.
    """
    axes = (4, 3, 0, 1, 2) if values.ndim == 5 else tuple(range(values.ndim))
    return torch.from_numpy(values.transpose(axes).copy())


def variable_name(parameter: str) -> str:
    """`left.1.0.weight` -> `unet_layer_1_left_0/kernel`, the inverse of `parameter_name`."""
    *layer, leaf = parameter.split(".")
    kind = {"weight": "kernel", "bias": "bias"}[leaf]
    if layer[0] == "heads":
        head = "embedding" if layer[1] == "lsds" else layer[1]
        return f"{head}_0/{kind}"
    if layer[0] == "up":
        return f"unet_up_{int(layer[1]) + 1}_to_{layer[1]}/{kind}"
    return f"unet_layer_{layer[1]}_{layer[0]}_{layer[2]}/{kind}"


def to_tensorflow(values: Tensor) -> np.ndarray:
    """The inverse of `to_torch`."""
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
    """Writes a checkpoint as the original programs leave it; returns its prefix.

    With `optimizer` (Adam) its moments and their powers of the decay are written too, so that the
    original can go on from it.
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
            # TensorFlow multiplies once before the first step.
            power = np.float32(decay ** (iteration + 1))
            arrays[f"{scope}/beta{index}_power"] = np.array(power)
    prefix = folder / f"train_net_checkpoint_{iteration}"
    write_bundle(prefix, arrays)
    return prefix


def read_published(folder: Path) -> Published:
    """The latest checkpoint in `folder`; DataError where it is absent, damaged or no such network.

    The iteration in the file's name and the one stored inside must agree.
    """
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
    """Adam's slots: full name, our parameter, which moment. Of two optimisers the later one's."""
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
            f"{bundle.prefix} says iteration {inside} inside; it was renamed or mixed up, fetch it "
            "again"
        )


def load_published(found: Published, module: nn.Module, name: str) -> None:
    """Fills `module`; DataError names the first weight that is missing, foreign or of other shape.

    `name`: the network that `module` was built for.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    there = {key: tuple(value.shape) for key, value in found.weights.items()}
    for key in sorted(wanted | there):
        if wanted.get(key) != there.get(key):
            raise DataError(
                f"{found.source} does not fit network {name!r}: {key} is "
                f"{there.get(key, 'absent')} there and {wanted.get(key, 'absent')} here. It may be "
                "of another dataset or network; the width of the top layers is `fmaps_out`"
            )
    module.load_state_dict(dict(found.weights))


def published_network(folder: Path | str, network: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """A network with the published weights in `folder`, in evaluation mode, and their iteration.

    `folder`: the checkpoint's files, as `fetch_DATASET_NETWORK_checkpoint` stores them. DataError
    where they are damaged or of another network.
    """
    checkpoint = read_published(Path(folder))
    module: nn.Module = build_network(network)
    load_published(checkpoint, module, network["name"])
    return module.eval(), checkpoint.iteration


def load_moments(found: Published, module: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Gives Adam the stored moments; False, and a fresh Adam, where the file has none."""
    named = dict(module.named_parameters())
    if set(found.moments) != set(named):
        return False
    for name, parameter in named.items():
        state = {k: torch.empty_like(parameter).copy_(v) for k, v in found.moments[name].items()}
        step = torch.tensor(float(found.iteration), dtype=torch.float32, device=parameter.device)
        optimizer.state[parameter] = {"step": step, **state}
    return True
