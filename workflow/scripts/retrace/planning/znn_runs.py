"""`train_znn` and `forward_znn`: ZNN's train.py and forward.py for a .cfg, without files of ours.

The .cfg is both a dataset, its samples, and a network. The dataset's name, and with it the folder
of the results, comes from train_net_prefix, which tells the experiments of ZNN apart.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import give, is_given, names
from retrace.config.znn_samples import source_settings
from retrace.errors import ConfigError, RetraceError
from retrace.files import digest
from retrace.formats.source import Source
from retrace.geometry import NmTriple
from retrace.planning.predict import predictions
from retrace.planning.targets import TargetFiles, other_targets, target_names
from retrace.planning.train import trained_files
from retrace.planning.volume_layout import source_layout
from retrace.znn.cfg import read_cfg
from retrace.znn.parameters import ZnnConfig
from retrace.znn.spec import read_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrace.planning.experiment import Planner

TRAIN, FORWARD = "train_znn", "forward_znn"
NETWORK = "znn_cfg"
"""Name of the network of such a run."""
PREFIX = "znn_"
"""Start of the name of its dataset."""
LONGEST_NAME = 60
"""Longest name of a dataset that is derived from a path."""
UNIT: NmTriple = (1, 1, 1)
"""Voxel size where neither the run nor an image says one, nm."""


def dataset_name(config: ZnnConfig, cfg: str) -> str:
    """The dataset of a .cfg, such as znn_up_experiments_n4_net for `../experiments/N4/net`.

    Paths that differ in more than upper and lower case have different names: one with other
    characters, such as `../experiments/N4_net`, has a digest of the path at the end of its name.
    """
    path = os.path.relpath(config.train_net_prefix or cfg)
    name = PREFIX + re.sub("[^a-z0-9]+", "_", path.lower().replace("../", "up_")).strip("_")
    leads_back = re.fullmatch(r"(\.\./)*(?!up/)[a-z0-9]+(/[a-z0-9]+)*", path.lower())
    if leads_back and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}_{digest(path)[:8]}"


def give_cfg(config: WorkflowConfig) -> tuple[str, str] | None:
    """Adds the dataset and the network of `cfg`, and returns their names; None without `cfg`.

    ConfigError for a .cfg that names no network or no data.
    """
    if config.cfg is None:
        if config.voxel_size_nm is not None:
            raise ConfigError(
                "`voxel_size_nm` belongs to a run with `cfg=FILE.cfg`; other datasets say it in "
                "their file"
            )
        return None
    parameters = read_cfg(Path(config.cfg))
    for name in ("fnet_spec", "fdata_spec"):
        if getattr(parameters, name) is None:
            raise ConfigError(f"{config.cfg} has no {name}; add it")
    dataset = dataset_name(parameters, config.cfg)
    for kind, name in (("datasets", dataset), ("networks", NETWORK)):
        if name in names(kind) and not is_given(kind, name):
            raise ConfigError(
                f"config/{kind}/{name}.yaml has the name of a run with `cfg`; rename it"
            )
    size = config.voxel_size_nm or _stated_size(parameters, config.cfg)
    content = {"name": dataset, "voxel_size_nm": list(size or UNIT), "cfg": config.cfg}
    give("datasets", dataset, content, config.cfg)
    give("networks", NETWORK, {"name": NETWORK, "family": "znn", "cfg": config.cfg}, config.cfg)
    if size is None:
        line = "no file states a voxel size, so voxels are 1 x 1 x 1 nm; else add"
        print(f"{config.cfg}: {line} voxel_size_nm='[50, 4, 4]' (z, y, x)", file=sys.stderr)
    return dataset, NETWORK


def _stated_size(parameters: ZnnConfig, cfg: str) -> NmTriple | None:
    """The voxel size that the file of an image states; None if none does."""
    samples = read_spec(Path(str(parameters.fdata_spec)), Path(cfg).parent)
    for sample in samples.values():
        for section in (*sample.images.values(), *sample.labels.values()):
            for file in section.files:
                try:
                    layout = source_layout(Source(**source_settings(file.path)))
                except (RetraceError, OSError):
                    continue  # it states none, or is refused where it is used
                if layout is not None:
                    return layout.voxel_size_nm
    return None


def check_words(config: WorkflowConfig, words: Iterable[str]) -> None:
    """ConfigError for a target of ZNN without `cfg`, and for `cfg` with another target."""
    words = list(words)
    requested = [word for word in (TRAIN, FORWARD) if word in words]
    if requested and config.cfg is None:
        raise ConfigError(
            f"{requested[0]} needs the configuration of ZNN: --config cfg=path/to/config.cfg"
        )
    if config.cfg is None:
        return
    others = target_names() - {TRAIN, FORWARD}
    if other := next((word for word in words if word in others), None):
        raise ConfigError(
            f"{other}: `cfg` is for {TRAIN} and {FORWARD} alone; for other targets, name the .cfg "
            "in config/datasets and config/networks"
        )
    if len(requested) == 2:
        _check_both(config)


def _check_both(config: WorkflowConfig) -> None:
    """Both programs in one run: neither reads what the other one writes, nor the same `init`."""
    parameters = read_cfg(Path(str(config.cfg)))
    prefix, net = parameters.train_net_prefix, parameters.forward_net
    reason = None
    if config.init:
        reason = "`init` may be for either"
    elif prefix is not None and net is not None and net.startswith(f"{prefix}_"):
        reason = f"forward_net {net} changes meanwhile"
    if reason:
        raise ConfigError(
            f"{TRAIN} and {FORWARD} in one run: {reason}; run {TRAIN} first, then {FORWARD}"
        )


@other_targets
def znn_targets() -> Iterator[tuple[str, TargetFiles]]:
    """The two targets; without `cfg` they are refused before their files matter."""
    yield TRAIN, lambda planner: trained_files(planner, *_pair(planner))
    yield FORWARD, _forward_files


def _pair(planner: Planner) -> tuple[str, str]:
    config, cfg = planner.config, str(planner.config.cfg)
    if config.cfg is None:
        raise ConfigError("give --config cfg=path/to/config.cfg")
    return dataset_name(read_cfg(Path(cfg)), cfg), NETWORK


def _forward_files(planner: Planner) -> list[str]:
    """The predictions of the samples of forward_range, and ZNN's files at output_prefix."""
    dataset, network = _pair(planner)
    parameters = read_cfg(Path(str(planner.config.cfg)))
    if planner.given_network(dataset, network) is None:
        raise ConfigError(
            f"{planner.config.cfg} has no forward_net; add the network to predict with, or name it "
            "with --config init=net.h5"
        )
    if not parameters.forward_range:
        raise ConfigError(f"{planner.config.cfg} has no forward_range; add the samples to predict")
    return predictions(planner, dataset, network)
