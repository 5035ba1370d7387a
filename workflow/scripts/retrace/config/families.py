"""The families of networks: one entry each, with the places of its parts and its capabilities.

Code that depends on the family reads a property of its entry; no other module compares the name of
a family. Parts are named as "module:object" and imported when they are used, so that planning needs
no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from retrace.errors import ConfigError, nearest

NetworkContent = Mapping[str, Any]
"""The content of a network's file, `extends` merged."""

VOLUME_VERBS = (
    "train",
    "predict",
    "segment",
    "evaluate",
    "view",
    "view_batch",
    "export",
    "package",
    "crate",
    "bundle",
)
"""What can be done with networks that predict volumes."""


@dataclass(frozen=True)
class OwnPaths:
    """Paths that the configuration of another system names, which the file of a network names."""

    configuration: str | None = None
    """That configuration."""
    architecture: str | None = None
    """A file with the network's layers in the system's own format."""
    net_prefix: str | None = None
    """Start of the paths of the networks that training writes in the system's own format."""
    forward_net: str | None = None
    """The network to predict with, without a training."""
    output_prefix: str | None = None
    """Start of the paths of predictions in the system's own format."""
    read: tuple[str, ...] = ()
    """Its files, which trainings may record."""

    @property
    def written(self) -> list[str]:
        """Start of the paths of the files that are written."""
        return [path for path in (self.net_prefix, self.output_prefix) if path]


@dataclass(frozen=True)
class Family:
    """A family of networks. "" names a part that the family does not have."""

    name: str
    """The value of `family` in the files of its networks."""
    system: str
    """The system that the networks come from."""

    # Settings
    file: str
    """Model of the files of its networks."""
    schema: str
    """Name of the JSON schema of these files in config/schemas."""
    settings: str
    """Model of a network that is resolved for one dataset."""
    resolve: str
    """Function (file, DatasetTraits) -> settings."""
    output_kind: Callable[[NetworkContent], str]
    """What a network predicts, from the content of its file: "affinities", "boundary", "classes"
    (of voxels), "examples" (classes of whole inputs) or "field" (of displacements)."""
    check_pair: str
    """Function (pair, dataset, network, verb) that refuses what cannot work in this family."""
    own_names: str = ""
    """Function (content, where) that replaces the system's names of settings in a network's file
    by those used here."""
    initial_file: Callable[[NetworkContent], str | None] = lambda content: None
    """From the content of a network's file the weights that it says training starts from."""
    own_paths: Callable[[NetworkContent], OwnPaths] = lambda content: OwnPaths()
    """From the content of a network's file the paths that the system's own configuration names."""

    # Networks, training, files
    architecture: tuple[str, ...] = ()
    """Settings that decide which weights fit a network, and what these mean."""
    builder: str = ""
    """NetworkBuilder of the module that is trained: a function and its arguments from settings."""
    set_up_training: str = ""
    """Function (inputs, module) that prepares task and optimizer of a training."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """Targets by the name of the head that predicts them."""
    losses: Mapping[str, str] = field(default_factory=dict)
    """Losses by the name that settings give them."""
    augmentations: Mapping[str, str] = field(default_factory=dict)
    """Steps of the augmentation by the name that settings give them."""
    own_files: Mapping[str, str] = field(default_factory=dict)
    """By suffix, the module that reads and writes the system's own files of weights."""
    reference: str = ""
    """What to cite for the networks in a methods section."""
    package: str = ""
    """FamilyPackage: how networks of the family are packaged."""

    # Data and verbs
    verbs: tuple[str, ...] = VOLUME_VERBS
    reads_examples: bool = False
    """Whether some of its networks classify single examples."""
    reads_stacks: bool = False
    """Whether its networks read stacks of sections to align, and no volumes."""
    scales_raw: bool = False
    """Whether raw is scaled to [-1, 1] and may be joined by predicted descriptors. Otherwise each
    input is an image with a normalisation of its own."""
    unit_images: bool = False
    """Whether all images are read in [0, 1], whatever the dataset's `preprocess` is."""

    # Training
    pads_training: bool = False
    """Whether `predict_padding` decides what is trained on, too."""
    max_training_gpus: int | None = None
    """Most GPUs that one training can use; None: any number."""
    records_curves: bool = False
    """Whether a training writes its history as a table and plots."""
    published_in_bucket: bool = False
    """Whether checkpoints of its networks are published in a dataset's bucket."""
    legacy_engine: bool = False
    """Whether the legacy engine (`engine: legacy`) trains and runs its networks."""
    output_names: bool = False
    """Whether predictions are also written under the names of `output_prefix`."""

    @property
    def aligns(self) -> bool:
        """Whether its networks align sections, and predict nothing."""
        return "align" in self.verbs

    def load(self, part: str) -> Any:
        """The object that a field names, such as `family.load("builder")`."""
        return load(getattr(self, part))

    def load_all(self, parts: str) -> dict[str, Any]:
        """The objects that a field lists, by name, such as `family.load_all("losses")`."""
        return {name: load(place) for name, place in getattr(self, parts).items()}


def _znn_config(content: NetworkContent) -> Any:
    """The .cfg file that a network of the family znn names, or None."""
    if not content.get("cfg"):
        return None
    return load("retrace.znn.cfg:read_cfg")(Path(content["cfg"]))


def _znn_output(content: NetworkContent) -> str:
    config = _znn_config(content)
    out_type = (
        config.out_type if config else content.get("parameters", {}).get("out_type", "boundary")
    )
    return {"affinity": "affinities", "semantic": "classes"}.get(out_type, "boundary")


def _znn_paths(content: NetworkContent) -> OwnPaths:
    config = _znn_config(content)
    if config is None:
        return OwnPaths(architecture=content.get("net"))
    files = (content["cfg"], config.fnet_spec, config.fdata_spec)
    return OwnPaths(
        configuration=content["cfg"],
        architecture=config.fnet_spec or content.get("net"),
        net_prefix=config.train_net_prefix,
        forward_net=config.forward_net,
        output_prefix=config.output_prefix,
        read=tuple(path for path in files if path),
    )


def _elektronn_output(content: NetworkContent) -> str:
    return "classes" if content.get("mode", "img-img") == "img-img" else "examples"


LSD = Family(
    name="lsd",
    system="Local shape descriptors (Sheridan et al. 2023)",
    reference="Sheridan et al. 2023",
    file="retrace.config.lsd_network:LsdNetworkFile",
    schema="network",
    settings="retrace.config.lsd_network:LsdNetworkSettings",
    resolve="retrace.config.lsd_network:resolve_lsd",
    output_kind=lambda content: "affinities",
    check_pair="retrace.config.lsd_pairs:check_lsd_pair",
    architecture=(
        "input_channels",
        "fmaps",
        "fmap_factor",
        "fmaps_out",
        "downsample",
        "heads",
    ),
    builder="retrace.networks.builders:UNET",
    set_up_training="retrace.training.lsd_family:set_up_lsd",
    targets={
        "affs": "retrace.targets.lsd_affinities:AFFINITIES",
        "lsds": "retrace.targets.lsd_descriptors:DESCRIPTORS",
    },
    losses={
        "mse": "retrace.losses.lsd_mse:MSE",
        "malis": "retrace.losses.lsd_malis:MALIS",
    },
    augmentations={
        "elastic": "retrace.augment.lsd_elastic:ELASTIC",
        "simple": "retrace.augment.lsd_simple:SIMPLE",
        "intensity": "retrace.augment.lsd_intensity:INTENSITY",
        "gamma": "retrace.augment.lsd_gamma:GAMMA",
        "noise": "retrace.augment.lsd_noise:NOISE",
        "blur": "retrace.augment.lsd_blur:BLUR",
        "defects": "retrace.augment.lsd_defects:DEFECTS",
    },
    scales_raw=True,
    package="retrace.packaging.lsd:PACKAGE",
    published_in_bucket=True,
    legacy_engine=True,
)
ZNN = Family(
    name="znn",
    system="ZNN (Zlateski, Lee, Seung 2016)",
    reference="Zlateski et al. 2015; Lee et al. 2015",
    file="retrace.config.znn_network:ZnnNetworkFile",
    schema="znn_network",
    settings="retrace.config.znn_network:ZnnNetworkSettings",
    resolve="retrace.config.znn_network:resolve_znn",
    output_kind=_znn_output,
    own_paths=_znn_paths,
    check_pair="retrace.config.znn_pairs:check_znn_pair",
    architecture=("input_channels", "heads", "graph"),
    builder="retrace.networks.builders:ZNN",
    set_up_training="retrace.training.znn_family:set_up_znn",
    losses={
        "square_loss": "retrace.losses.znn_costs:square_loss",
        "square-square_loss": "retrace.losses.znn_costs:square_square_loss",
        "binomial_cross_entropy": "retrace.losses.znn_costs:binomial_cross_entropy",
        "softmax_loss": "retrace.losses.znn_costs:softmax_loss",
    },
    own_files={".h5": "retrace.checkpoints.znn"},
    package="retrace.packaging.znn:PACKAGE",
    pads_training=True,
    output_names=True,
)
ELEKTRONN = Family(
    name="elektronn",
    system="ELEKTRONN",
    reference="Dorkenwald et al. 2017",
    file="retrace.config.elektronn_network:ElektronnNetworkFile",
    schema="elektronn_network",
    settings="retrace.config.elektronn_network:ElektronnNetworkSettings",
    resolve="retrace.config.elektronn_network:resolve_elektronn",
    output_kind=_elektronn_output,
    check_pair="retrace.config.elektronn_pairs:check_elektronn_pair",
    architecture=("input_channels", "heads", "architecture"),
    builder="retrace.networks.builders:ELEKTRONN",
    set_up_training="retrace.training.elektronn_family:set_up_elektronn",
    losses={
        "nll": "retrace.losses.elektronn_terms:nll_terms",
        "nll_weak": "retrace.losses.elektronn_terms:weak_terms",
        "nll_multiple_binary": "retrace.losses.elektronn_terms:binary_terms",
        "regression": "retrace.losses.elektronn_terms:squared_terms",
    },
    own_files={".param": "retrace.checkpoints.elektronn"},
    package="retrace.packaging.elektronn:PACKAGE",
    reads_examples=True,
    unit_images=True,
    max_training_gpus=1,
    records_curves=True,
)
SEAMLESS = Family(
    name="seamless",
    system="SEAMLeSS (Mitchell et al. 2019)",
    file="retrace.config.seamless_network:SeamlessNetworkFile",
    schema="seamless_network",
    settings="retrace.config.seamless_network:SeamlessNetworkSettings",
    resolve="retrace.config.seamless_network:resolve_seamless",
    output_kind=lambda content: "field",
    check_pair="retrace.config.seamless_network:check_seamless_pair",
    own_names="retrace.config.seamless_options:network_in_own_names",
    initial_file=lambda content: content.get("state_archive"),
    architecture=(
        "height",
        "kernel",
        "encoder_maps",
        "aligner_maps",
        "pre_encoder",
        "unit",
        "train_size",
        "composition",
        "input",
    ),
    builder="retrace.networks.builders:SEAMLESS",
    own_files={".pt": "retrace.checkpoints.seamless"},
    package="retrace.packaging.seamless:PACKAGE",
    verbs=("train", "align", "evaluate", "view", "package"),
    reads_stacks=True,
)

FAMILIES = {family.name: family for family in (LSD, ZNN, ELEKTRONN, SEAMLESS)}
"""All families by name."""
DEFAULT_FAMILY = LSD.name
"""The family of a file without `family`."""


def load(name: str) -> Any:
    """The object "module:object", or the module "module"."""
    module, _, attribute = name.partition(":")
    imported = import_module(module)
    return getattr(imported, attribute) if attribute else imported


def family_named(name: str, where: str) -> Family:
    """The family of that name; ConfigError names `where` and the nearest one."""
    if name not in FAMILIES:
        raise ConfigError(f"{where}: family {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


class NamedNetwork(Protocol):
    """The settings of a network, in its file or resolved for a dataset."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def family(self) -> str:
        """The name of its family."""

    def plain(self) -> dict[str, Any]:
        """The settings that were given, as JSON values."""


def family_of(network: NamedNetwork) -> Family:
    """The family of a network; ConfigError if there is none of that name."""
    return family_named(network.family, f"network {network.name!r}")


def aligning_families() -> list[Family]:
    """Families whose networks align sections."""
    return [family for family in FAMILIES.values() if family.aligns]
