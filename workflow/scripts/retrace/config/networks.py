"""Networks by name: read from YAML with what they extend, checked, resolved for a dataset.

A network is `config/networks/NAME.yaml`, looked for in the working directory first, then in the
workflow. The models in `config/*_network.py` explain each setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from retrace.config.dataset_model import Dataset, DatasetBase
from retrace.config.datasets import ISOTROPIC_BELOW, has_boundaries, has_classes
from retrace.config.examples_model import ExamplesDataset
from retrace.config.families import (
    DEFAULT_FAMILY,
    FAMILIES,
    Family,
    NamedNetwork,
    OwnPaths,
    aligning_families,
    family_named,
    family_of,
)
from retrace.config.network_settings import DatasetTraits, NetworkSettings
from retrace.config.schema import check
from retrace.config.yaml_files import (
    Settings,
    check_names,
    merge,
    names,
    settings_of,
    version,
)
from retrace.elektronn.architecture import HEAD
from retrace.errors import ConfigError, nearest

BOUNDARY = "boundary"
"""The output of networks that separate the inside of cells from membranes."""


# ---------------------------------------------------------------- files


def network_content(name: str, below: tuple[str, ...] = ()) -> Settings:
    """The content of a network's file merged over the networks it extends, the last one winning.

    `below`: the networks whose `extends` led here. ConfigError for a circle.
    """
    own, where = settings_of("networks", name)
    if name in below:
        raise ConfigError(f"{where}: `extends` runs in a circle: {' -> '.join([*below, name])}")
    merged: Settings = {}
    for parent in _parents(own.pop("extends", ()), where):
        merged = merge(merged, network_content(parent, (*below, name)))
    family = family_named(str({**merged, **own}.get("family", DEFAULT_FAMILY)), where)
    if family.own_names:
        own = family.load("own_names")(own, where)
    return merge(merged, own)


def _parents(extends: object, where: str) -> list[str]:
    """The names in `extends`: one, or a list of them."""
    parents = extends if isinstance(extends, (list, tuple)) else [extends]
    for parent in parents:
        if not isinstance(parent, str):
            shown = "null" if parent is None else repr(parent)
            raise ConfigError(
                f"{where}: extends: {shown} is not allowed; give the name of a network, or a list "
                "of names"
            )
    return list(parents)


def with_parents(names: Iterable[str]) -> list[str]:
    """Names of networks, and of all that they extend."""
    found, waiting = list[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            own, where = settings_of("networks", name)
            waiting += _parents(own.get("extends", ()), where)
    return sorted(found)


def load_network(name: str) -> NamedNetwork:
    """A network's file merged with those it extends, recipes and dataset overrides still apart."""
    content = network_content(name)
    where = f"config/networks/{name}.yaml"
    family = family_named(str(content.get("family", DEFAULT_FAMILY)), where)
    network: NamedNetwork = check(family.load("file"), content, where)
    if content["name"] != name:
        raise ConfigError(f"{where}: `name: {content['name']}` must be {name!r}, the file's name")
    check_names("datasets", content.get("datasets", ()), f"{where}: `datasets`")
    return network


def resolved(content: Mapping[str, Any], dataset: DatasetTraits, where: str) -> Any:
    """The merged content of a network's file, checked and resolved for one dataset."""
    family = family_named(str(content.get("family", DEFAULT_FAMILY)), where)
    return family.load("resolve")(check(family.load("file"), content, where), dataset)


def network_for(name: str, dataset: DatasetBase) -> Any:
    """The network as it is trained on this dataset; a `NetworkSettings` of its family.

    ConfigError if a setting is missing or wrong, or the network cannot read such data.
    """
    network = load_network(name)
    check_kind(dataset, network)
    return family_of(network).load("resolve")(network, traits_of(dataset))


def network_by_name(name: str, voxel_size_nm: Sequence[float] | None = None, **traits: Any) -> Any:
    """A network for notebooks: `extends` merged, and the recipe chosen by the voxel size.

    `voxel_size_nm` (z, y, x) of the volumes that it reads; not needed for networks of single
    examples and for those that align. `traits`: further fields of `DatasetTraits`. Returns the
    `NetworkSettings` of its family, which `retrace.networks.build_network` takes.
    """
    file = load_network(name)
    family = family_of(file)
    kind = family.output_kind(file.plain())
    if voxel_size_nm is None and kind in ("affinities", "boundary", "classes"):
        raise ConfigError(f"network {name!r} reads volumes; give their `voxel_size_nm`, z, y, x")
    if voxel_size_nm is not None:
        _check_voxel_size(voxel_size_nm)
        isotropic = max(voxel_size_nm) / min(voxel_size_nm) < ISOTROPIC_BELOW
        traits = {"voxel_size_nm": tuple(voxel_size_nm), "isotropic": isotropic, **traits}
    known = DatasetTraits.__dataclass_fields__
    if unknown := [trait for trait in traits if trait not in known]:
        raise ConfigError(f"no trait {unknown[0]!r} of a dataset; {nearest(unknown[0], known)}")
    return family.load("resolve")(file, DatasetTraits(**traits))


def _check_voxel_size(voxel_size_nm: Sequence[float]) -> None:
    try:
        fits = len(voxel_size_nm) == 3 and all(size > 0 for size in voxel_size_nm)
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError(
            f"voxel_size_nm: {voxel_size_nm!r} is not allowed; give three numbers above 0 (z, y, x)"
        )


def traits_of(dataset: DatasetBase) -> DatasetTraits:
    """Properties of a dataset that the resolution of a network depends on."""
    if isinstance(dataset, ExamplesDataset):
        return DatasetTraits(dataset.name, example_classes=dataset.examples.classes)
    assert isinstance(dataset, Dataset)
    return DatasetTraits(
        name=dataset.weights_of or dataset.name,
        voxel_size_nm=dataset.voxel_size_nm,
        isotropic=dataset.isotropic,
        boundaries_drawn=has_boundaries(dataset),
        labels_are_classes=lambda: has_classes(dataset),
        lsd_sigma_nm=dataset.lsd_sigma_nm,
    )


# ---------------------------------------------------------------- predictions of networks


def _family(content: Mapping[str, Any]) -> Family:
    name = str(content.get("family", DEFAULT_FAMILY))
    return family_named(name, f"network {content.get('name')!r}")


def output_kind(content: Mapping[str, Any]) -> str:
    """What a network predicts, from the content of its file.

    "affinities", "boundary", "classes" (of voxels), "examples" (classes of whole inputs), or
    "field" (of displacements).
    """
    return str(_family(content).output_kind(content))


def kind_by_name(name: str) -> str:
    """The same by name; "" for an unreadable file, an error only when used."""
    return _kinds(version("networks")).get(name, "")


@lru_cache(maxsize=4)
def _kinds(version: tuple[Any, ...]) -> dict[str, str]:
    """What each network predicts, of networks in this version that can be read."""
    kinds: dict[str, str] = {}
    for name in names("networks"):
        with suppress(ConfigError):
            kinds[name] = output_kind(network_content(name))
    return kinds


def predicts_boundaries(name: str) -> bool:
    """Whether a network predicts the inside of cells and membranes, which are scored directly."""
    return kind_by_name(name) == "boundary"


def labels_voxels(name: str) -> bool:
    """Whether a network predicts classes of voxels; false for a file that cannot be read."""
    return kind_by_name(name) == "classes"


def networks_that_align() -> list[str]:
    """Names of the networks that align sections."""
    by_family = names_by_family()
    return sorted(name for f in aligning_families() for name in by_family.get(f.name, []))


def names_by_family() -> dict[str, list[str]]:
    """Names of the networks by the name of their family; files that cannot be read are left out."""
    return _names_by_family(version("networks"))


@lru_cache(maxsize=4)
def _names_by_family(version: tuple[Any, ...]) -> dict[str, list[str]]:
    """The names of the networks in this version."""
    by_family: dict[str, list[str]] = {}
    for name in names("networks"):
        try:
            content = network_content(name)
        except ConfigError:
            continue  # an error only when that network is used
        by_family.setdefault(str(content.get("family", DEFAULT_FAMILY)), []).append(name)
    return by_family


def own_paths(name: str) -> OwnPaths:
    """The paths that the configuration of another system names, for a network that names it."""
    content = network_content(name)
    return _family(content).own_paths(content)


def outside_paths(used: Iterable[str]) -> list[str]:
    """Files that networks read or write in their system's own format, or the start of them."""
    paths: list[str] = []
    for name in used:
        named = own_paths(name)
        paths += [*named.written, *named.read]
        paths += [named.forward_net] if named.forward_net else []
    return paths


def initial_files() -> list[str]:
    """The weights that networks say their training starts from."""
    found = []
    for name in names("networks"):
        try:
            content = network_content(name)
            found.append(_family(content).initial_file(content))
        except ConfigError:
            continue  # an error only when that network is used
    return [file for file in found if isinstance(file, str)]


def check_kind(dataset: DatasetBase, network: NamedNetwork) -> None:
    """Refuses volumes for networks that classify whole inputs, and examples for all others."""
    name, whole = network.name, output_kind(network.plain()) == "examples"
    if whole and isinstance(dataset, ExamplesDataset):
        _check_classes(dataset, network)
    if whole == isinstance(dataset, ExamplesDataset):
        return
    fitting = _networks_of_kind(examples=not whole)
    if whole:
        raise ConfigError(
            f"network {name!r} gives one class for a whole image, and dataset {dataset.name!r} "
            "has volumes, whose voxels are labelled. Take a dataset with `examples`, such as "
            f"mnist, or a network of volumes, such as {', '.join([*fitting[:3], 'mtlsd'])}"
        )
    raise ConfigError(
        f"dataset {dataset.name!r} has single images with a class each, and network {name!r} "
        f"(family {network.family}) labels voxels of volumes. Take a network of mode img-scalar "
        f"or vect-scalar: {', '.join(fitting) or 'none is there'}"
    )


def _networks_of_kind(*, examples: bool) -> list[str]:
    """Networks of the families that read examples: those of examples, or those of volumes."""
    by_family = names_by_family()
    reading = [n for f in FAMILIES.values() if f.reads_examples for n in by_family.get(f.name, [])]
    kinds = _kinds(version("networks"))
    return [name for name in reading if (kinds.get(name) == "examples") == examples]


def _check_classes(dataset: ExamplesDataset, network: NamedNetwork) -> None:
    classes = dataset.examples.classes
    if (own := getattr(network, "n_lab", None)) not in (None, classes):
        raise ConfigError(
            f"network {network.name!r} has `n_lab: {own}`, and dataset {dataset.name!r} {classes} "
            "classes; remove `n_lab`"
        )


def context_network(network: NetworkSettings, dataset: DatasetBase) -> Any:
    """The network whose descriptors an auto-context network reads, None for the others."""
    return network_for(network.autocontext, dataset) if network.autocontext else None


def upstream_names(network: NetworkSettings) -> list[str]:
    """Names of the networks whose weights or predictions a network reads."""
    read = [node.network for node in network.recursive.values()]
    others = [network.autocontext, network.initial_network, *read]
    return list(dict.fromkeys(name for name in others if name))


def head_names(network: NetworkSettings) -> list[str]:
    """The network's outputs, in order; none for a network that aligns."""
    return [head.name for head in network.heads]


def interior_map(network: NetworkSettings) -> str | None:
    """The output whose channel 0 is the inside of cells; None if there is no such output.

    Networks of two classes have it if their labels are objects: 0 is the inside, 1 the boundary.
    """
    if head_names(network) == [BOUNDARY]:
        return BOUNDARY
    of_objects = network.labels_are_classes is False
    if head_names(network) == [HEAD] and of_objects and network.n_lab == 2:
        return HEAD
    return None


def is_scored_as_it_is(network: NetworkSettings) -> bool:
    """Whether a network's prediction is compared with labels directly, without segmentation."""
    return head_names(network) in ([BOUNDARY], [HEAD])
