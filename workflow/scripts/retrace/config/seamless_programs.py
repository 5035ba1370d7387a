"""Command lines of SEAMLeSS's train.py and gen_stack.py as files of a network and a dataset.

Source: seung-lab/SEAMLeSS, training/train.py and training/gen_stack.py of July 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from retrace.config.aliases import leaves
from retrace.config.dataset_model import DatasetFile
from retrace.config.networks import network_content
from retrace.config.schema import check
from retrace.config.seamless_network import (
    SeamlessNetworkFile,
    SeamlessNetworkSettings,
    check_levels,
)
from retrace.config.seamless_options import TRAIN, network_in_own_names
from retrace.config.yaml_files import Settings, merge
from retrace.errors import ConfigError
from retrace.geometry import NmBox, NmTriple
from retrace.remote.addresses import is_address

SAME_NAME = (
    *(f"lambda{number}" for number in range(1, 7)),
    *("lr", "trunc", "skip", "fall_time", "fine_tuning", "fine_tuning_lr_factor"),
    *("mask_smooth_radius", "mask_neighborhood_radius", "blank_var_threshold"),
    *("smoothness_penalty_type", "vis_interval", "state_archive"),
)
"""Options of train.py that are settings of a network under the same name."""
FLAGS = frozenset(
    ("fine_tuning", "hm", "mm", "no_jitter", "skip_sample_aug", "folds_only", "dry_run")
    + ("pe_only", "enc_only", "crack", "dilate", "amp", "unet", "ep", "upsample_penalty")
    + ("inference_only", "archive_fields", "no_anneal", "supervised", "unsupervised")
)
"""Options of train.py without a value."""
TRAIN_DEFAULTS: Settings = {
    **{"size": 5, "k": 7, "lr": 2e-4, "num_epochs": 1000, "fall_time": 2, "trunc": None},
    **{"lambda1": 0.1, "lambda2": 0.3, "lambda3": 1e-5, "lambda4": 10, "lambda5": 0, "lambda6": 0},
    **{"mask_smooth_radius": 20, "mask_neighborhood_radius": 20, "blank_var_threshold": 0.001},
    **{"fine_tuning": False, "fine_tuning_lr_factor": 0.2, "skip": 0, "hm": False},
    **{"smoothness_penalty_type": "jacob", "vis_interval": 10},
}
"""Values of train.py for options that are not given; `trunc` is size - 1 for every size."""
BASE = "seamless"
"""The network that has the values of SEAMLeSS for all other settings."""
SIDE, HEIGHT, MIP = 1152, 50, 5
"""Values of gen_stack.py for options that are not given: samples of (50, 1152, 1152) at mip 5."""


def about_option(name: str) -> str:
    """What an option of train.py is for, or why it is refused."""
    if name in SAME_NAME:
        return _description(name)
    alias = TRAIN[name]
    if alias.refused:
        return f"Refused: {alias.refused}."
    if not alias.place:
        return "Has one possible value here."
    return f"`{alias.place}`: {_description(alias.place.partition('.')[0])}"


def _description(setting: str) -> str:
    return str(SeamlessNetworkSettings.model_fields[setting].description)


def network_of_options(name: str, options: Mapping[str, Any]) -> Settings:
    """The content of a network's file from the options of train.py; ConfigError if one is wrong.

    Options that are not given have train.py's defaults. An archive of 2018 (.pt) was trained with
    fields that are added, which `composition` then says.
    """
    where = f"options of {name}"
    given = network_in_own_names(options, where)
    defaults = network_in_own_names(TRAIN_DEFAULTS, "defaults of train.py")
    known = {path for path, _ in leaves(given)}
    rest: Settings = {}
    for key, value in defaults.items():
        nested = isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
        if key not in known and not nested:
            rest[key] = value
    content = {"name": name, "family": "seamless", "extends": BASE, **given, **rest}
    if str(given.get("state_archive", "")).endswith((".pt", ".pth")):
        content["composition"] = "additive"
    own = {key: value for key, value in content.items() if key != "extends"}
    check_levels(check(SeamlessNetworkFile, merge(network_content(BASE), own), where), where)
    return content


@dataclass(frozen=True)
class SampledLayer:
    """The layer that gen_stack.py samples: address, voxels (z, y, x) nm, and box where known."""

    path: str
    voxel_size_nm: NmTriple
    box: NmBox | None = None


def layer_address(source: str) -> str:
    """The address of a `--source`, as gen_stack.py takes it: a path in Google Cloud Storage.

    Other addresses, and files and layers of this machine, count as what they are.
    """
    local = Path(source)
    if (local / "info").is_file():
        return f"file://{local.resolve()}"
    is_path = local.exists() or source.startswith(("/", "./", "../"))
    return source if is_address(source) or is_path else f"gs://{source}"


def dataset_of_options(name: str, options: Mapping[str, Any], layer: SampledLayer) -> Settings:
    """The content of a dataset's file from the options of gen_stack.py; ConfigError if one is
    wrong."""
    mip = options.get("mip", MIP)
    count = options.get("count", 100)
    stack: Settings = {
        "mip": mip,
        "count": count,
        "height": options.get("stack_height", HEIGHT),
        "side": options.get("dim", SIDE),
    }
    if options.get("test"):
        stack["test_count"] = count
    if options.get("no_split"):
        stack["test_fraction"] = 0
    if "coords" in options:
        stack["coordinates"] = options["coords"]
    if roi := _roi_nm(options, layer):
        stack["roi_nm"] = roi
    alignment: Settings = {"volume": "sections", "stacks": {f"mip{mip}": stack}}
    alignment |= _mask(options)
    content = {
        "name": name,
        "voxel_size_nm": list(layer.voxel_size_nm),
        "volumes": {"sections": {"raw": {"path": layer.path}}},
        "alignment": alignment,
    }
    check(DatasetFile, content, f"options of {name}")
    return content


def _mask(options: Mapping[str, Any]) -> Settings:
    """The defect mask of --mask, read at mip 5; a value of 100 or more marks a defect.

    Places that are black or masked almost everywhere are always drawn again (`reject`), which
    --check_mask asks for.
    """
    if "mask" not in options:
        if options.get("check_mask"):
            raise ConfigError("--check_mask: there is no mask to check; name it with --mask PATH")
        return {}
    return {"mask": {"path": layer_address(options["mask"]), "mip": MIP, "defect_from": 100}}


def _roi_nm(options: Mapping[str, Any], layer: SampledLayer) -> Settings | None:
    """The box between --xs and --xe, and so on, in voxels of mip 0; None without these options.

    gen_stack.py takes xe and ye as sizes; its README says a bounding box.
    """
    if not any(f"{axis}{end}" in options for axis in "zyx" for end in "se"):
        return None
    offset, shape = [], []
    for index, axis in enumerate("zyx"):
        first, end = (_edge(options, layer, index, f"{axis}{which}") for which in "se")
        if end <= first:
            raise ConfigError(
                f"--{axis}e {options.get(f'{axis}e')} is not above --{axis}s; give the first and "
                "the last place of the box, in voxels of mip 0"
            )
        offset.append(first)
        shape.append(end - first)
    return {"offset": offset, "shape": shape}


def _edge(options: Mapping[str, Any], layer: SampledLayer, index: int, name: str) -> float:
    """One edge of the box, nm: of an option, or of the layer."""
    if name in options:
        return float(options[name] * layer.voxel_size_nm[index])
    if layer.box is None:
        raise ConfigError(f"--{name}: the layer is not read, so its edge is unknown; give it")
    start = layer.box.offset[index]
    return start if name.endswith("s") else start + layer.box.shape[index]


def as_yaml(content: Settings, command: Sequence[str]) -> str:
    """The text of a file, with the command that it was written from."""
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    return f"# Written by seamless.py {' '.join(command)}\n{text}"
