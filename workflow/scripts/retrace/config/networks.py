"""Datasets, networks and the configuration: read from YAML, checked, resolved to plain dicts.

A dataset is `config/datasets/NAME.yaml`, a network `config/networks/NAME.yaml`; both are looked for
in the working directory first, then beside the workflow. What comes out of `load_dataset` and
`network_for` has every value a script needs; the schemas in `config/schemas` explain each field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrace.config.dataset_model import DatasetBase
from retrace.config.datasets import has_boundaries, has_classes
from retrace.config.network_schema import FAMILIES, check
from retrace.config.unet_shapes import label_padding_nm, output_shape
from retrace.config.yaml_files import Settings, merge, names, read_yaml, yaml_file
from retrace.elektronn import settings as elektronn
from retrace.elektronn.architecture import HEAD
from retrace.errors import ConfigError, nearest
from retrace.znn.cfg import read_cfg
from retrace.znn.settings import resolve

BOUNDARY = "boundary"
"""The output of networks that tell the inside of cells from what is between them."""


# ---------------------------------------------------------------- datasets


# ---------------------------------------------------------------- networks


def _extended(name: str, seen: tuple[str, ...] = ()) -> Settings:
    """A network's file laid over those it extends, the last named winning."""
    path = yaml_file("networks", name)
    if name in seen:
        raise ConfigError(f"{path}: `extends` runs in a circle: {' -> '.join([*seen, name])}")
    own = read_yaml(path)
    parents = own.pop("extends", [])
    merged: Settings = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = merge(merged, _extended(parent, (*seen, name)))
    return merge(merged, own)


def load_network(name: str) -> Settings:
    """A network with what it extends laid under it, recipes and dataset overrides still apart."""
    network = _extended(name)
    where = f"config/networks/{name}.yaml"
    family = network.get("family", "lsd")
    if family not in FAMILIES:
        raise ConfigError(f"{where}: family {family!r}; {nearest(str(family), FAMILIES)}")
    check(network, FAMILIES[family], where)
    if network["name"] != name:
        raise ConfigError(f"{where}: `name: {network['name']}` must be {name!r}, the file's name")
    return network


def network_for(name: str, dataset: DatasetBase) -> Settings:
    """The network as it is trained on this dataset: recipe, then overrides, then what follows.

    ConfigError where the input shape does not fit the pooling.
    """
    network = load_network(name)
    check_kind(dataset, network)
    if network["family"] == "znn":
        return resolve(network, has_boundaries(dataset), not dataset.isotropic)
    if network["family"] == "elektronn":
        given = {"n_lab": dataset["examples"]["classes"]} if "examples" in dataset else {}
        return elektronn.resolve(
            {**given, **network},
            boundaries_drawn=has_boundaries(dataset),
            are_classes=has_classes(dataset),
            isotropic=dataset.isotropic,
        )
    if network["family"] == "seamless":
        return network
    recipes, overrides = network.pop("recipes"), network.pop("datasets", {})
    network = merge(network, recipes["isotropic" if dataset.isotropic else "anisotropic"])
    family = dataset.get("weights_of", dataset["name"])
    network = merge(network, overrides.get(family, {}))
    if "lsd" in network and dataset.get("lsd_sigma_nm"):
        network["lsd"] = network["lsd"] | {"sigma_nm": dataset["lsd_sigma_nm"]}
    for key in ("input_shape", "inference_shape"):
        output_shape(network, network[key])
    if network["label_padding_nm"] == "auto":
        network["label_padding_nm"] = label_padding_nm(network, dataset["voxel_size_nm"])
    return network


def classifies_examples(network: Mapping[str, Any]) -> bool:
    """Whether a network answers once for a whole input, as read from its file."""
    mode = network.get("mode", elektronn.DEFAULTS["mode"])
    return network.get("family", "lsd") == "elektronn" and mode != "img-img"


def check_kind(dataset: DatasetBase, network: Mapping[str, Any]) -> None:
    """Refuses volumes for networks that classify whole inputs, and examples for all others."""
    name, whole = network["name"], classifies_examples(network)
    if whole == ("examples" in dataset):
        if (
            whole
            and network.get("n_lab", dataset["examples"]["classes"])
            != dataset["examples"]["classes"]
        ):
            raise ConfigError(
                f"network {name!r} has `n_lab: {network['n_lab']}`, and dataset "
                f"{dataset['name']!r} {dataset['examples']['classes']} classes; remove `n_lab`"
            )
        return
    fitting = [n for n in of_family("elektronn") if classifies_examples(_extended(n)) != whole]
    if whole:
        raise ConfigError(
            f"network {name!r} gives one class for a whole image, and dataset {dataset['name']!r} "
            "has volumes, whose voxels are labelled. Take a dataset with `examples`, such as "
            f"mnist, or a network of volumes, such as {', '.join([*fitting[:3], 'mtlsd'])}"
        )
    raise ConfigError(
        f"dataset {dataset['name']!r} has single images with a class each, and network {name!r} "
        f"(family {network['family']}) labels voxels of volumes. Take a network of mode img-scalar "
        f"or vect-scalar: {', '.join(fitting) or 'none is there'}"
    )


def context_network(network: Mapping[str, Any], dataset: DatasetBase) -> Settings | None:
    """The network whose descriptors an auto-context network reads, None for the others."""
    name = network.get("autocontext")
    return network_for(name, dataset) if name else None


def head_names(network: Mapping[str, Any]) -> list[str]:
    """The network's outputs, in order; none of one that aligns."""
    return [head["name"] for head in network.get("heads", [])]


def of_family(family: str) -> list[str]:
    """Names of the networks of a family; files that cannot be read are of none."""
    found = []
    for name in names("networks"):
        try:
            if _extended(name).get("family", "lsd") == family:
                found.append(name)
        except ConfigError:
            continue  # whoever asks for that network gets the error
    return found


def answers_once(name: str) -> bool:
    """Whether a network classifies whole inputs; a file that cannot be read counts as none."""
    try:
        return classifies_examples(_extended(name))
    except ConfigError:
        return False


def check_networks(wanted: Iterable[str]) -> None:
    """Refuses the name of no network, with the nearest one (ConfigError)."""
    known = names("networks")
    for name in wanted:
        if name not in known:
            raise ConfigError(f"`compare: networks`: no network {name!r}; {nearest(name, known)}")


def predicts_boundaries(name: str) -> bool:
    """Whether a network predicts interior and membrane, which are scored as they are.

    A file that cannot be read counts as none: whoever asks for that network gets the error.
    """
    try:
        network = _extended(name)
        return network.get("family") == "znn" and _out_type(network) == BOUNDARY
    except ConfigError:
        return False


def _out_type(network: Mapping[str, Any]) -> str:
    """`out_type` of a network of the family znn, from its file or its .cfg."""
    if "cfg" in network:
        return str(read_cfg(Path(network["cfg"]))["out_type"])
    return str(network.get("parameters", {}).get("out_type", BOUNDARY))


def net_prefixes() -> list[str]:
    """Where networks are written by .cfg files that networks are read from."""
    found = []
    for name in of_family("znn"):
        try:
            network = _extended(name)
            if "cfg" in network:
                found.append(read_cfg(Path(network["cfg"]))["train_net_prefix"])
        except ConfigError:
            continue  # whoever asks for that network gets the error
    return [prefix for prefix in found if prefix]


def labels_voxels(name: str) -> bool:
    """Whether a network gives classes of voxels, of the family elektronn or of ZNN's `semantic`.

    A file that cannot be read counts as none: whoever asks for that network gets the error.
    """
    try:
        network = _extended(name)
        if network.get("family") == "znn":
            return _out_type(network) == "semantic"
    except ConfigError:
        return False
    return network.get("family") == "elektronn" and not classifies_examples(network)


# ---------------------------------------------------------------- pairs and targets


def interior_map(network: Mapping[str, Any]) -> str | None:
    """The output whose channel 0 is the inside of cells; None where there is no such output.

    Of classes that is so where they were made from objects: 0 inside, 1 the boundary.
    """
    if head_names(network) == [BOUNDARY]:
        return BOUNDARY
    of_objects = not network.get("labels_are_classes", True)
    if head_names(network) == [HEAD] and of_objects and network["n_lab"] == 2:
        return HEAD
    return None


def is_scored_as_it_is(network: Mapping[str, Any]) -> bool:
    """Whether a network's prediction is compared with labels, and not what is segmented of it."""
    return head_names(network) in ([BOUNDARY], [HEAD])
