"""Tools for ELEKTRONN's configuration files, network sizes and parameter files.

    elektronn.py translate CONFIG.py [--voxel-size-nm Z Y X] [--folder config]
    elektronn.py describe NETWORK | CONFIG.py [--input Z Y X] [--desired Z Y X]
                          [--batch N] [--classes N] [--json]
    elektronn.py profile NETWORK [--largest 200] [--device auto] [--output Speed_NETWORK.csv]
    elektronn.py model   --settings JSON --param net.param --output published.safetensors
    elektronn.py network --model model.safetensors --output net.param

`translate` converts CONFIG to networks/NAME.yaml and, if it names cubes, datasets/NAME_cubes.yaml
in the folder. NETWORK is a network in config/networks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from retrace.checkpoints.elektronn import SUFFIX, load_param, read_param, write_param
from retrace.checkpoints.safetensors import load_model, read_metadata, save_model
from retrace.command_line import add_job, as_number, parse_job
from retrace.config.any_network import stored_network
from retrace.config.elektronn_network import (
    ElektronnNetworkFile,
    ElektronnNetworkSettings,
    resolve_elektronn,
)
from retrace.config.families import family_named
from retrace.config.network_settings import DatasetTraits
from retrace.config.networks import load_network
from retrace.config.schema import check
from retrace.device import choose_device
from retrace.elektronn.cfg import read_elektronn_config
from retrace.elektronn.describe import at_input, description, table
from retrace.elektronn.layers import architecture_of, dropout_of
from retrace.elektronn.translate import Translation, translate
from retrace.errors import ConfigError, DataError, run
from retrace.files import atomic_write
from retrace.geometry import Triple
from retrace.networks import ElektronnNetwork, build_network
from retrace.networks.elektronn_profile import COLUMNS, profile_sizes, timed_pass
from retrace.planning.conversion_settings import ConversionSettings


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("translate")
    one.add_argument("config", type=Path, help="configuration file of ELEKTRONN 1")
    one.add_argument("--voxel-size-nm", nargs=3, type=as_number, help="of its cubes, z y x")
    one.add_argument("--folder", type=Path, default=Path("config"))
    one = verbs.add_parser("describe")
    one.add_argument("network", help="name of a network, or a configuration file of ELEKTRONN")
    one.add_argument("--input", nargs="+", type=int, help="size, z y x, refused if it does not fit")
    one.add_argument("--desired", nargs="+", type=int, help="the nearest size below is taken")
    one.add_argument(
        "--classes", type=int, default=10, help="where the dataset says how many; 10, as of digits"
    )
    one.add_argument("--batch", type=int, help="examples of a batch")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")
    one = verbs.add_parser("profile")
    one.add_argument("network", help="name of a network that labels volumes")
    one.add_argument("--largest", type=int, default=200, help="of y and x, voxels")
    one.add_argument("--device", default="auto", help="auto, cpu or cuda")
    one.add_argument("--output", type=Path, help="table that rows are added to")
    one = verbs.add_parser("model")
    add_job(one, file=["param"])
    one.add_argument("--output", required=True, type=Path)
    one = verbs.add_parser("network")
    add_job(one, file=["model"], has_settings=False)
    one.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def translate_file(args: argparse.Namespace) -> None:
    """Writes network and dataset of a configuration file; ConfigError if other files exist."""
    config = read_elektronn_config(args.config)
    translation = translate(config, args.voxel_size_nm)
    name = translation.network["name"]
    architecture_of(name, check(ElektronnNetworkFile, translation.network, str(args.config)))
    files = {args.folder / "networks" / f"{name}.yaml": translation.network}
    if translation.dataset is not None:
        files[args.folder / "datasets" / f"{translation.dataset['name']}.yaml"] = (
            translation.dataset
        )
    texts = {path: as_yaml(content, args.config.name) for path, content in files.items()}
    for path, text in texts.items():
        if path.exists() and path.read_text() != text:
            raise ConfigError(
                f"{path} exists with other content; move it away, or change "
                f"save_name in {args.config}"
            )
    for path, text in texts.items():
        atomic_write(path, text)
        print(path)
    print(notes(translation))
    print(f"next: snakemake --use-singularity train_{translation.trained_on}_{name}")


def as_yaml(content: dict[str, Any], source: str) -> str:
    """The text of a YAML file, with lists of numbers in one line."""
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=140)
    return f"# Translated from {source}, a configuration file of ELEKTRONN.\n{text}"


def notes(translation: Translation) -> str:
    """One line per parameter: its translation, or why it has none."""
    width = max(map(len, translation.notes), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in translation.notes.items())


def describe_network(args: argparse.Namespace) -> None:
    """Prints sizes, parameters and cost of a network."""
    if args.network.endswith(".py"):
        translation = translate(read_elektronn_config(Path(args.network)), [1, 1, 1])
        network = check(ElektronnNetworkFile, translation.network, args.network)
    else:
        file = load_network(args.network)
        if not isinstance(file, ElektronnNetworkFile):
            raise ConfigError(
                f"network {args.network!r} is of the family {file.family!r}; `describe` needs "
                "a network of the family elektronn"
            )
        network = file
    if network.n_lab is None:
        network = network.with_(n_lab=args.classes)
    architecture = at_input(network.name, network, args.input, args.desired)
    rates = dropout_of(network.name, network, len(architecture.layers))
    content = description(architecture, args.batch or network.batch_size, rates)
    print(json.dumps(content, indent=1) if args.json else table(content))


def profile_network(args: argparse.Namespace) -> None:
    """Times dense passes over inputs of many sizes; skips those that need too much memory."""
    network = load_network(args.network)
    if not isinstance(network, ElektronnNetworkFile) or network.mode != "img-img":
        raise ConfigError(
            f"network {args.network!r} does not label voxels as ELEKTRONN's do; `profile` knows "
            "networks of the family elektronn and mode img-img, such as neuro3d_doc"
        )
    device = choose_device(args.device)
    resolved: Any = resolve_elektronn(network, DatasetTraits(boundaries_drawn=True))
    module = build_network(resolved, device=device)
    assert isinstance(module, ElektronnNetwork)
    sizes = module.architecture.sizes
    assert sizes is not None
    inputs = list(profile_sizes(sizes.axes, args.largest))
    if not inputs:
        raise ConfigError(f"--largest {args.largest} is below all sizes tried; take 200")
    path = args.output or Path(f"Speed_{args.network}.csv")
    if not path.exists():
        path.write_text("\t".join(COLUMNS) + "\n")
    for size in inputs:
        add_speed(module.eval(), size, device, path)


def add_speed(module: ElektronnNetwork, size: Triple, device: torch.device, path: Path) -> None:
    """Appends the timing of one size to the table, or prints why there is none."""
    try:
        row = timed_pass(module, size, device).row
    except (MemoryError, RuntimeError) as error:
        print(f"{list(size)}: {str(error).splitlines()[0]}", flush=True)
        return
    with path.open("a") as file:
        file.write(f"{row}\n")
    print(row, flush=True)


def param_to_model(args: argparse.Namespace) -> None:
    """Converts a parameter file to a model; DataError if it is another network."""
    settings = check(ConversionSettings, args.settings, "--settings")
    module = build_network(settings.network)
    load_param(read_param(args.param), module)
    metadata = {
        "network": settings.network.plain(),
        "dataset": settings.dataset,
        "iteration": 0,
        "source": args.param.name,
    }
    save_model(args.output, module, metadata)


def model_to_param(args: argparse.Namespace) -> None:
    """Writes a trained model as a parameter file of ELEKTRONN."""
    content = read_metadata(args.model)["network"]
    family = family_named(str(content["family"]), f"network {content['name']!r}")
    if SUFFIX not in family.own_files:
        raise DataError(
            f"{args.model} holds network {content['name']!r} of the family {content['family']!r}; "
            "parameter files hold networks of the family elektronn"
        )
    network: ElektronnNetworkSettings = stored_network(content)
    module: ElektronnNetwork = build_network(network)
    load_model(args.model, module, network)
    write_param(args.output, module)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    verbs = {
        "translate": translate_file,
        "describe": describe_network,
        "profile": profile_network,
        "model": param_to_model,
        "network": model_to_param,
    }
    verbs[args.verb](args)


if __name__ == "__main__":
    run(main)
