"""Configuration files of ELEKTRONN 1: all their parameters, and the treatment of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.elektronn.assignments import Names, read_assignments
from retrace.errors import ConfigError, nearest

NETWORK = (
    "activation_func",
    "anisotropic_data",
    "batch_size",
    "class_weights",
    "desired_input",
    "dropout_rates",
    "example_ignore_threshold",
    "filters",
    "flip_data",
    "grey_augment_channels",
    "history_freq",
    "LR_decay",
    "LR_schedule",
    "max_runtime",
    "MLP_layers",
    "mode",
    "monitor_batch_size",
    "n_dim",
    "n_lab",
    "n_steps",
    "nof_filters",
    "optimizer",
    "pool",
    "pooling_mode",
    "target",
    "upright_x",
    "warp_on",
    "weight_decay",
    "SGD_params",
    "RPROP_params",
    "CG_params",
    "LBFGS_params",
    "Adam_params",
)
"""Parameters that the file of a network has under the same name."""
DATASET = (
    "cube_prios",
    "d_files",
    "data_path",
    "l_files",
    "label_path",
    "preview_data_path",
    "valid_cubes",
    "zchxy_order",
)
"""Parameters that describe the dataset."""
ELSEWHERE = {
    "save_path": "results are in results/DATASET/NETWORK of the working directory",
    "save_name": "the name of the network and the dataset",
    "overwrite": "a training never deletes another; delete its folder in work/train to start again",
    "plot_on": "the curves are always plotted",
    "print_status": "the status is always printed",
    "device": "--config device=cpu, cuda or auto (a GPU if there is one); with "
    "CUDA_VISIBLE_DEVICES=N it is GPU N",
    "param_save_h": "training states are saved every `checkpoint_every` iterations",
    "initial_prev_h": "previews are saved every `snapshot_every` iterations",
    "prev_save_h": "previews are saved every `snapshot_every` iterations",
    "background_processes": "batches are prepared in other processes, and depend only on the seed",
    "MFP": "predictions always use max-fragment pooling, for any size",
    "param_file": "--config init=FILE starts a training from it",
    "preview_kwargs": "predictions have all classes and all sections",
    "data_class_name": "MNISTData is the dataset mnist",
    "data_load_kwargs": "settings of the network; `path` is the archive of a dataset of its own, "
    "and the mode decides whether digits are images or vectors",
    "data_batch_kwargs": "only dict() is supported",
}
"""Parameters that retrace does not need, and what replaces each."""
UNSUPPORTED = {
    "rnn_layer_kwargs": "recurrent layers are not part of retrace",
    "use_example_weights": "it is not documented how weights follow from an earlier prediction; "
    "set it in the network's file and give each volume `inputs: {example_weights: ...}`",
    "lazy_labels": "the `info` of label files is not read; give the volumes of the dataset "
    "`lazy_labels`",
    "label_prop_thresh": "it needs lazy_labels; set it in the network's file once the dataset "
    "has them",
    "border_mode": "all images must have the same size; crop or pad them first",
    "downsample_xy": "downsample the files first, or use a coarser mip level",
    "pre_process": "images are read in [0, 1]; contrast is varied by grey_augment_channels instead",
    "SSGD_params": "ELEKTRONN has no such optimizer either",
}
"""Parameters that are refused unless their value has no effect, with the reason."""

DEFAULTS: Names = {
    "activation_func": "relu",
    "anisotropic_data": True,
    "background_processes": False,
    "batch_size": 1,
    "border_mode": "crop",
    "class_weights": None,
    "cube_prios": None,
    "d_files": [],
    "data_batch_kwargs": {},
    "data_class_name": None,
    "data_load_kwargs": {},
    "data_path": "/",
    "desired_input": 100,
    "device": False,
    "downsample_xy": False,
    "dropout_rates": [],
    "example_ignore_threshold": 0.0,
    "filters": [],
    "flip_data": True,
    "grey_augment_channels": [0],
    "history_freq": [500],
    "initial_prev_h": 1.0,
    "l_files": [],
    "label_path": "/",
    "label_prop_thresh": None,
    "lazy_labels": False,
    "LR_decay": 0.993,
    "LR_schedule": None,
    "max_runtime": 86400,
    "MFP": [],
    "MLP_layers": [],
    "mode": "img-img",
    "monitor_batch_size": 10,
    "n_dim": 2,
    "n_lab": None,
    "n_steps": 10**12,
    "nof_filters": [],
    "optimizer": "SGD",
    "overwrite": True,
    "param_file": None,
    "param_save_h": 1.0,
    "plot_on": True,
    "pool": [],
    "pooling_mode": "max",
    "pre_process": None,
    "prev_save_h": 3.0,
    "preview_data_path": None,
    "preview_kwargs": {"export_class": 1, "max_z_pred": 5},
    "print_status": True,
    "rnn_layer_kwargs": None,
    "save_name": "Test",
    "save_path": "~/CNN_Training/",
    "SSGD_params": None,
    "target": "nll",
    "upright_x": False,
    "use_example_weights": False,
    "valid_cubes": [],
    "warp_on": False,
    "weight_decay": False,
    "zchxy_order": False,
}
"""Defaults of ELEKTRONN's program; those of the optimizers are in the file of the network."""

HARMLESS: dict[str, tuple[Any, ...]] = {
    "rnn_layer_kwargs": (None, {}),
    "border_mode": ("crop",),
    "SSGD_params": (None,),
}
"""Values of unsupported parameters that have no effect; for others, all that are false."""


@dataclass(frozen=True)
class ElektronnConfig:
    """A configuration file: all `values`, with defaults, and the names that it sets itself."""

    path: Path
    values: Names
    assigned: tuple[str, ...]


def known_parameters() -> tuple[str, ...]:
    """All names that a file may assign."""
    return tuple(sorted({*NETWORK, *DATASET, *ELSEWHERE, *UNSUPPORTED}))


def read_elektronn_config(path: Path) -> ElektronnConfig:
    """All parameters of a configuration file.

    ConfigError for a file with more than assignments, for an unknown parameter, with the nearest
    name, and for a value that retrace does not support, with the reason.
    """
    assigned = read_assignments(path)
    for name in assigned:
        if name not in known_parameters():
            raise ConfigError(
                f"{path}: unknown parameter {name!r}; {nearest(name, known_parameters())}"
            )
    values = DEFAULTS | assigned
    _refuse_unsupported(path, values)
    return ElektronnConfig(path, values, tuple(assigned))


def _refuse_unsupported(path: Path, values: Mapping[str, Any]) -> None:
    for name, reason in UNSUPPORTED.items():
        value = values[name]
        if value in HARMLESS[name] if name in HARMLESS else not value:
            continue
        raise ConfigError(f"{path}: {name} = {value!r} is not supported: {reason}")
    if values["target"] in ("affinity", "malis"):
        raise ConfigError(
            f"{path}: target {values['target']!r} is not supported in networks of ELEKTRONN, whose "
            "gradients need a package that is no longer maintained; the families lsd and znn learn "
            "affinities, also with MALIS (networks mtlsd, malis, n4_a)"
        )
