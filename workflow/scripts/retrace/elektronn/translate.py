"""A configuration file of ELEKTRONN as the content of a network's and a dataset's YAML file.

ELEKTRONN's axes are in the order x, y, z; here they are z, y, x.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import h5py
from pydantic import ValidationError

from retrace.elektronn.calculator import axes_of, sizes_near
from retrace.elektronn.cfg import DATASET, ELSEWHERE, NETWORK, ElektronnConfig
from retrace.elektronn.layers import check_counts
from retrace.elektronn.parameters import ElektronnParameters, Mode
from retrace.errors import ConfigError, nearest
from retrace.formats.h5_files import opened_h5
from retrace.geometry import checked_voxel_size
from retrace.reading import reading_content
from retrace.settings_model import plain_value

Content = dict[str, Any]
NETWORK_DEFAULTS: Content = ElektronnParameters().complete().plain()

TARGETS = {
    "nll": "nll",
    "nll_weak": "nll_weak",
    "nll_mutiple_binary": "nll_multiple_binary",
    "regression": "regression",
}
"""Our names of ELEKTRONN's targets, of which the third is misspelt there."""
DIGITS = 10
"""Number of classes of MNISTData."""
SIDE = 28
"""Pixels along y and x of its images."""
UNUSED = "not used: there are no d_files, or data_class_name replaces the cubes, as in ELEKTRONN"


@dataclass
class Translation:
    """The translated file; `notes` explain the translation of each parameter of the file.

    `trained_on`: name of the dataset of the network, or the placeholder DATASET.
    """

    network: Content
    dataset: Content | None = None
    trained_on: str = "DATASET"
    notes: dict[str, str] = field(default_factory=dict)


def translate(config: ElektronnConfig, voxel_size_nm: Sequence[float] | None = None) -> Translation:
    """The network, and for a file with cubes also the dataset.

    `voxel_size_nm` (z, y, x) of the cubes, which ELEKTRONN's files do not have. ConfigError for
    values that contradict each other.
    """
    values = config.values
    _check_choice(config, "mode", get_args(Mode))
    _check_choice(config, "target", TARGETS)
    translation = Translation({"name": name_of(values["save_name"]), "family": "elektronn"})
    for name in config.assigned:
        if name in NETWORK:
            translation.notes[name] = f"{name} of the network"
        elif name in DATASET:
            translation.notes[name] = UNUSED if not _names_cubes(config) else "the dataset"
        elif name in ELSEWHERE:
            translation.notes[name] = ELSEWHERE[name]
    _translate_network(config, translation)
    if _names_cubes(config):
        translation.dataset = _dataset(config, voxel_size_nm, translation.notes)
        translation.trained_on = translation.dataset["name"]
        translation.network["input_channels"] = (
            len(translation.dataset["volumes"]["cube_0"].get("inputs", {})) + 1
        )
    return translation


def name_of(text: str) -> str:
    """The text as a name of a network or dataset: lower case, digits and _."""
    name = re.sub(r"[^a-z0-9]+", "_", str(text).lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"network_{name}".rstrip("_")


def _check_choice(config: ElektronnConfig, name: str, allowed: Any) -> None:
    value = config.values[name]
    if value not in allowed:
        raise ConfigError(f"{config.path}: {name} = {value!r}; {nearest(str(value), allowed)}")


def _translate_network(config: ElektronnConfig, translation: Translation) -> None:
    values, network = config.values, translation.network
    for name in NETWORK:
        if name in values and name not in ("desired_input", "max_runtime", "n_lab"):
            value = plain_value(_ours(name, values[name]))
            if value != NETWORK_DEFAULTS.get(name) or name in ("mode", "n_dim"):
                network[name] = value
    network["target"] = TARGETS[values["target"]]
    network["max_runtime"] = int(values["max_runtime"])
    images = values["mode"] != "vect-scalar"
    axes = values["n_dim"] if images else 1
    for name in ("filters", "pool"):
        if values[name]:
            network[name] = [_reversed(size, axes, config, name) for size in values[name]]
    _digits(config, translation)
    if "desired_input" not in network:
        network["desired_input"] = _input(config, network, axes, translation.notes)
    if values["n_lab"] is None and "n_lab" not in network:
        raise ConfigError(
            f"{config.path}: n_lab is None, for which ELEKTRONN reads all labels first; give the "
            "number of classes"
        )
    network.setdefault("n_lab", values["n_lab"])


def _ours(name: str, value: Any) -> Any:
    """The value of a parameter as the file of a network has it."""
    if name == "history_freq":
        return value[0] if isinstance(value, list) else value
    if name == "dropout_rates":
        return value or []
    if name == "activation_func":
        renamed = {"sig": "sigmoid", "ReLU": "relu", "none": "linear", "None": "linear"}
        return (
            [renamed.get(v, v) for v in value]
            if isinstance(value, list)
            else renamed.get(value, value)
        )
    return value


def _reversed(size: Any, axes: int, config: ElektronnConfig, name: str) -> list[int]:
    """A size in the order z, y, x. In 2-D, ELEKTRONN calls the first axis x, and it stays first."""
    sizes = list(size) if isinstance(size, (list, tuple)) else [size] * axes
    if len(sizes) != axes:
        raise ConfigError(f"{config.path}: {name} has {size!r}, and the network {axes} axes")
    return sizes[::-1] if axes == 3 or _reads_cubes(config) else sizes


def _reads_cubes(config: ElektronnConfig) -> bool:
    return config.values["mode"] == "img-img"


def _input(config: ElektronnConfig, network: Content, axes: int, notes: dict[str, str]) -> Any:
    """The input that ELEKTRONN would choose for `desired_input`."""
    desired = _reversed(config.values["desired_input"], axes, config, "desired_input")
    if not all(type(size) is int and size > 0 for size in desired):
        raise ConfigError(
            f"{config.path}: desired_input is {config.values['desired_input']!r}; give the size of "
            "a patch, a number from 1 for each axis"
        )
    own = {key: value for key, value in network.items() if key in NETWORK_DEFAULTS}
    try:
        parameters = ElektronnParameters(**own)
    except ValidationError:
        return desired  # the check of the network's file says what is wrong
    check_counts(network["name"], parameters)
    if not network.get("filters"):
        return desired
    chosen = list(sizes_near(axes_of(network["filters"], network["pool"]), desired).input)
    if chosen != desired:
        notes["desired_input"] = f"{chosen} (z, y, x), which fits the layers; {desired} does not"
    return chosen


def _names_cubes(config: ElektronnConfig) -> bool:
    return bool(config.values["d_files"]) and config.values["data_class_name"] is None


def _digits(config: ElektronnConfig, translation: Translation) -> None:
    """Adds the settings of the network that ELEKTRONN's class MNISTData has."""
    values, network = config.values, translation.network
    kind = values["data_class_name"]
    if kind is None:
        return
    if kind != "MNISTData":
        raise ConfigError(
            f"{config.path}: data_class_name {kind!r} is not supported: other classes would "
            "have to be run; MNISTData is the dataset mnist"
        )
    options = _load_options(config)
    network["n_lab"] = values["n_lab"] or DIGITS
    network["warp_on"] = bool(options["warp_on"])
    network["shift_augment"] = bool(options["shift_augment"])
    if values["mode"] == "vect-scalar":
        network["desired_input"] = (SIDE - network["shift_augment"] * 2) ** 2
    translation.trained_on = name = "mnist"
    if options["path"] is not None:
        translation.dataset = _digits_of(options["path"], network["name"])
        translation.trained_on = name = translation.dataset["name"]
    translation.notes["data_class_name"] = f"the dataset {name}: train_{name}_{network['name']}"


def _load_options(config: ElektronnConfig) -> Content:
    """The options of MNISTData that the file sets, and the defaults of the others.

    ConfigError for an unknown option, for one that would have no effect here, and for options of
    its batches.
    """
    values = config.values
    options = {"path": None, "convert2image": True, "warp_on": False, "shift_augment": True}
    supported = (*options, "center")
    for name in values["data_load_kwargs"]:
        if name not in supported:
            raise ConfigError(
                f"{config.path}: data_load_kwargs has {name!r}; {nearest(name, supported)}"
            )
    options |= values["data_load_kwargs"]
    if not options.get("center", True):
        raise ConfigError(
            f"{config.path}: center = False in data_load_kwargs is not supported: the mean of the "
            "training images is always subtracted; remove it"
        )
    if values["mode"] == "img-scalar" and not options["convert2image"]:
        raise ConfigError(
            f"{config.path}: convert2image = {options['convert2image']} in data_load_kwargs gives "
            "vectors, and mode 'img-scalar' needs images; take True, or mode 'vect-scalar'"
        )
    if values["data_batch_kwargs"]:
        raise ConfigError(
            f"{config.path}: data_batch_kwargs = {values['data_batch_kwargs']!r} is not supported: "
            "training batches are always drawn from the training split; take dict()"
        )
    return options


def _digits_of(path: str, network: str) -> Content:
    """The dataset of an archive (mnist.pkl or mnist.pkl.gz) that the file names itself."""
    return {
        "name": f"{network}_digits",
        "examples": {
            "classes": DIGITS,
            "archive": {"path": str(Path(path).expanduser())},
            "image_shape": [SIDE, SIDE],
        },
    }


def _dataset(
    config: ElektronnConfig, voxel_size_nm: Sequence[float] | None, notes: dict[str, str]
) -> Content:
    values, count = config.values, len(config.values["d_files"])
    if count != len(values["l_files"]):
        raise ConfigError(
            f"{config.path}: d_files names {count} cubes and l_files {len(values['l_files'])}; the "
            "labels of each cube are needed in the same order"
        )
    if voxel_size_nm is None:
        raise ConfigError(
            f"{config.path} names cubes, and ELEKTRONN's files have no voxel size; give "
            "--voxel-size-nm Z Y X"
        )
    _note_missing(config, notes)
    held_out = _held_out(config, count)
    trained = [index for index in range(count) if index not in held_out]
    channels = _channels(config)
    dataset: Content = {
        "name": name_of(values["save_name"]) + "_cubes",
        "voxel_size_nm": list(checked_voxel_size(voxel_size_nm)),
        "volumes": {f"cube_{index}": _volume(config, index, channels) for index in range(count)},
        "train": [f"cube_{index}" for index in trained],
        "validation": [f"cube_{index}" for index in held_out],
        "test": [],
    }
    if values["cube_prios"]:
        dataset["sampling"] = {"probabilities": _priorities(config, trained)}
    previews = _previews(config, notes)
    dataset["volumes"] |= previews
    dataset["test"] = list(previews)
    notes["valid_cubes"] = (
        "`validation` of the dataset; add cubes with labels to `test` for `evaluate` to score"
    )
    return dataset


def _held_out(config: ElektronnConfig, count: int) -> list[int]:
    """Which of `count` cubes validate, from 0; in the file, numbers below 0 count from the end."""
    chosen = [int(index) for index in config.values["valid_cubes"]]
    for index in chosen:
        if not -count <= index < count:
            raise ConfigError(f"{config.path}: valid_cubes names cube {index} of {count}")
    return [index % count for index in chosen]


def _note_missing(config: ElektronnConfig, notes: dict[str, str]) -> None:
    """Names the first cube of images, and of labels, that does not exist (yet)."""
    for setting, files in (("data_path", "d_files"), ("label_path", "l_files")):
        sources = [_source(config.values[setting], entry) for entry in config.values[files]]
        missing = [source["path"] for source in sources if not Path(source["path"]).is_file()]
        if missing:
            notes[setting] = (
                f"the dataset; NO FILE {missing[0]} ({len(missing)} of {len(sources)} are "
                f"missing): correct `{setting}` or `{files}`, or put the files there, and "
                "translate again if they have channels"
            )


def _volume(config: ElektronnConfig, index: int, channels: int) -> Content:
    """A cube and its labels, which are in its centre."""
    values = config.values
    stored = values["zchxy_order"]
    images = _source(values["data_path"], values["d_files"][index])
    labels = _source(values["label_path"], values["l_files"][index])
    images["axes"] = "zcxy" if stored else "cxyz" if channels else "xyz"
    further = {
        f"channel_{number}": {**images, "channel": number} for number in range(1, channels or 1)
    }
    return {
        "raw": {**images, "channel": 0} if channels else images,
        "labels": {**labels, "axes": "zxy" if stored else "xyz", "objects": "classes"},
        **({"inputs": further} if further else {}),
        "auto_crop": "even",
    }


def _channels(config: ElektronnConfig) -> int:
    """Number of channels of the cubes, from the files that exist; 0 without a channel axis."""
    values = config.values
    by_path = {}
    for entry in values["d_files"]:
        source = _source(values["data_path"], entry)
        if Path(source["path"]).is_file():
            with reading_content(source["path"]), opened_h5(Path(source["path"])) as file:
                shape = file[source["array"]].shape if source["array"] in file else ()
            at = 1 if values["zchxy_order"] else 0
            by_path[source["path"]] = shape[at] if len(shape) == 4 else 0
    if len(set(by_path.values())) > 1:
        shown = ", ".join(f"{path} {count or 1}" for path, count in by_path.items())
        raise ConfigError(
            f"{config.path}: d_files have different numbers of channels ({shown}); all must "
            "have the same number"
        )
    return next(iter(by_path.values()), 1 if values["zchxy_order"] else 0)


def _source(folder: str, entry: Any) -> Content:
    name, key = entry
    return {"path": str(Path(folder).expanduser() / name), "array": key}


def _priorities(config: ElektronnConfig, trained: Sequence[int]) -> dict[str, float]:
    priorities = list(config.values["cube_prios"])
    if len(priorities) != len(trained):
        raise ConfigError(
            f"{config.path}: cube_prios has {len(priorities)} entries for {len(trained)} cubes "
            "that are trained on (those of valid_cubes have none)"
        )
    return {f"cube_{index}": float(p) for index, p in zip(trained, priorities, strict=True)}


def _previews(config: ElektronnConfig, notes: dict[str, str]) -> dict[str, Content]:
    """Cubes that are predicted for viewing: each array of the preview file, if it exists."""
    preview = config.values["preview_data_path"]
    if not preview:
        return {}
    path = Path(preview).expanduser()
    if not path.is_file():
        notes["preview_data_path"] = (
            f"NO FILE {path}: its cubes are not in the dataset; correct `preview_data_path`, or "
            "put the file there, and translate again. Previews during the training show the "
            "validation cube"
        )
        return {}
    with reading_content(path), opened_h5(path) as file:
        keys = sorted(key for key, item in file.items() if isinstance(item, h5py.Dataset))
    return {
        f"preview_{index}": {"raw": {"path": str(path), "array": key, "axes": "xyz"}}
        for index, key in enumerate(keys)
    }
