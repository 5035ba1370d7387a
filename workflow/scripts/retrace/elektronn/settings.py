"""A network of the family elektronn, resolved: its layers, and ELEKTRONN's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.elektronn.architecture import (
    HEAD,
    RECONSTRUCTION,
    Architecture,
    architecture_of,
    dropout_of,
)
from retrace.errors import ConfigError

Settings = dict[str, Any]

EXAMPLE_WEIGHTS = "example_weights"
"""The input of a volume that weighs its voxels, with `use_example_weights`."""
TILE = (32, 128, 128)
"""Voxels that a prediction in shares gives at once."""

DEFAULTS: Settings = {
    "mode": "img-img",
    "n_dim": 3,
    "input_channels": 1,
    "filters": [],
    "pool": [],
    "nof_filters": [],
    "MLP_layers": [],
    "activation_func": "relu",
    "pooling_mode": "max",
    "dropout_rates": [],
    "shared_dropout_mask": False,
    "autoencoder": None,
    "target": "nll",
    "batch_size": 1,
    "predict_padding": "valid",
    "flip_data": True,
    "anisotropic_data": "auto",
    "upright_x": False,
    "grey_augment_channels": [0],
    "warp_on": False,
    "example_ignore_threshold": 0.0,
    "label_prop_thresh": None,
    "use_example_weights": False,
    "class_weights": None,
    "weight_decay": False,
    "optimizer": "SGD",
    "SGD_params": {"LR": 0.001, "momentum": 0.9},
    "RPROP_params": {"penalty": 0.35, "gain": 0.2, "beta": 0.7, "initial_update_size": 1e-4},
    "CG_params": {"n_steps": 4, "alpha": 0.35, "beta": 0.75, "max_step": 0.02, "min_step": 8e-5},
    "LBFGS_params": {
        "maxfun": 40,
        "maxiter": 4,
        "m": 10,
        "factr": 1e2,
        "pgtol": 1e-9,
        "iprint": -1,
    },
    "Adam_params": {"LR": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
    "LR_decay": 0.993,
    "LR_schedule": None,
    "history_freq": 500,
    "monitor_batch_size": 10,
    "n_steps": 100000,
    "max_runtime": None,
    "actions": [],
    "LR_cosine": None,
    "average": None,
    "shift_augment": False,
    "distort": None,
    "pretrained": None,
    "checkpoint_every": 1000,
    "snapshot_every": 5000,
    "grow_boundary": "auto",
}
"""What a network's file need not say. Names and values are ELEKTRONN's where it has them."""
AUTOENCODER: Settings = {
    "activation_func": "tanh",
    "input_noise": 0.3,
    "train_decoder_bias": True,
    "noise_in_evaluation": False,
}
"""The same of a tied auto-encoder. ELEKTRONN never trains the biases of the decoder, and cannot
switch the noise off."""
NESTED = ("SGD_params", "RPROP_params", "CG_params", "LBFGS_params", "Adam_params")


def filled(network: Mapping[str, Any]) -> Settings:
    """A network's file with the defaults under it."""
    found = {**DEFAULTS, **network}
    for key in NESTED:
        found[key] = {**DEFAULTS[key], **found[key]}
    if found["autoencoder"] is not None:
        found["autoencoder"] = {**AUTOENCODER, **found["autoencoder"]}
    return found


def resolve(
    network: Mapping[str, Any], *, boundaries_drawn: bool, are_classes: bool, isotropic: bool
) -> Settings:
    """All that the scripts read of a network.

    `are_classes`: labels are numbers of classes, else objects, whose boundaries are class 1 and
    made where `boundaries_drawn` is False. ConfigError for layers that do not fit.
    """
    found = filled(network)
    if "n_lab" not in found and found["autoencoder"] is None:
        raise ConfigError(
            f"network {network['name']!r} needs `n_lab`, the number of classes; 2 for barriers"
        )
    layers = architecture_of(found)
    dropout = dropout_of(found, len(layers.layers))
    if found["anisotropic_data"] == "auto":
        found["anisotropic_data"] = not isotropic
    if found["grow_boundary"] == "auto":
        needed = layers.mode == "img-img" and not (boundaries_drawn or are_classes)
        found["grow_boundary"] = {"steps": 1, "only_xy": not isotropic} if needed else None
    return {
        **found,
        "family": "elektronn",
        "architecture": layers.as_dict(),
        "dropout_rates": dropout,
        "heads": [_head(layers)],
        "neighborhood": [],
        "inputs": ["raw", *(f"channel_{n}" for n in range(1, found["input_channels"]))],
        "input_shape": list(layers.input_shape),
        "inference_shape": _inference_shape(layers),
        "labels_are_classes": are_classes,
        "iterations": found["n_steps"],
    }


def _head(layers: Architecture) -> Settings:
    if layers.autoencoder is not None:
        return {"name": RECONSTRUCTION, "channels": layers.widths[0]}
    return {"name": HEAD, "channels": layers.layers[-1].maps}


def _inference_shape(layers: Architecture) -> list[int]:
    """What a prediction in shares reads at once."""
    sizes = layers.sizes
    if layers.mode != "img-img" or sizes is None:
        return list(layers.input_shape)
    return [field[-1] - 1 + n for field, n in zip(sizes.fields, TILE, strict=True)]
