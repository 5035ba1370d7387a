"""The programs of SEAMLeSS with their own options.

    seamless.py train [--OPTION VALUE ...] EXPERIMENT_NAME            a network in config/networks
    seamless.py gen_stack --source LAYER [--OPTION VALUE ...] NAME    a dataset in config/datasets
    seamless.py combine_h5 NEW A.h5 B.h5 ...                          NEW.h5
    seamless.py net_hist [NAME]                                       prints the ancestors of a run
    seamless.py inspect_enc --archive MODEL STACKS.h5                 a picture of encodings

`train` and `gen_stack` write the file that the workflow reads, and print the command that runs it.
`seamless.py train -h` lists all options of train.py. An option without a counterpart is refused.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from retrace.alignment.inspect import inspect_encodings
from retrace.alignment.runs import print_lineage
from retrace.alignment.stack_writer import combine_stack_files
from retrace.config.seamless_options import TRAIN
from retrace.config.seamless_programs import (
    FLAGS,
    SAME_NAME,
    SampledLayer,
    about_option,
    as_yaml,
    dataset_of_options,
    layer_address,
    network_of_options,
)
from retrace.config.yaml_files import Settings, load_yaml, names, read_scalar, read_yaml
from retrace.errors import ConfigError, RetraceError, nearest, run
from retrace.files import atomic_write
from retrace.formats.folder_kinds import H5_SUFFIXES
from retrace.formats.source import Source
from retrace.geometry import NmTriple, nm_triple
from retrace.storage.images import open_image

CONFIG = Path("config")
NUMBERS = ("count", "mip", "stack_height", "dim", "zs", "ze", "xs", "xe", "ys", "ye")
"""Options of gen_stack.py that are whole numbers."""


TEXTS = ("state_archive", "smoothness_penalty_type", "penalty", "similarity_penalty_type")
"""Options of train.py that are text, also where it looks like a number."""


def number_of(text: str) -> Any:
    """The number that a text is, in its plain form; other text as it is."""
    value = read_scalar(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return int(value) if isinstance(value, int) else float(value)


class Command(argparse.ArgumentParser):
    """The parser of one command; it knows the names of its options, typed in full."""

    def __init__(self, **kwargs: Any) -> None:
        self.options: list[str] = []
        super().__init__(**kwargs, allow_abbrev=False)

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """As ArgumentParser."""
        action = super().add_argument(*args, **kwargs)
        self.options += action.option_strings
        return action

    def refuse(self, words: Sequence[str]) -> None:
        """ConfigError for words of the command line that are no option and no name."""
        for word in (word.partition("=")[0] for word in words):
            if word.startswith("--"):
                raise ConfigError(f"no option {word!r}; {nearest(word, self.options)}")
        if words:
            raise ConfigError(
                f"{words[0]!r} is left over: a word before it stands where no value belongs; "
                f"`{self.prog} -h` shows which options take one"
            )


class Refuse(argparse.Action):
    """An option that has no counterpart: its reason."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        option = self.option_strings[0]
        raise ConfigError(f"{option}: {TRAIN[self.dest].refused}; leave it out")


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Adds every option of train.py, each with its purpose or the reason why it is refused."""
    for name in (*SAME_NAME, *TRAIN):
        kind: dict[str, Any] = {"help": about_option(name).replace("%", "%%")}
        if name in TRAIN and TRAIN[name].refused:
            kind |= {"action": Refuse, "nargs": 0 if name in FLAGS else "?"}
        elif name in FLAGS:
            kind |= {"action": "store_true", "default": argparse.SUPPRESS}
        else:
            kind |= {"type": str if name in TEXTS else number_of, "metavar": "VALUE"}
            kind["default"] = argparse.SUPPRESS
        parser.add_argument(f"--{name}", dest=name, **kind)
    parser.add_argument("name", metavar="EXPERIMENT_NAME", help="name of the network and the run")


def add_stack_options(parser: argparse.ArgumentParser) -> None:
    """Adds every option of gen_stack.py."""
    about = {
        "count": "number of stacks; 100 if absent",
        "mip": "level that is sampled; 5 if absent",
        "stack_height": "sections of a stack; 50 if absent, as in the example of the README",
        "dim": "side of a section, pixels; 1152 if absent",
    }
    for name in NUMBERS:
        text = about.get(name, "edge of the box that is sampled, voxels of mip 0")
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help=text)
    flags = {
        "test": "also stacks of the last 20 %% of the sections, as many",
        "no_split": "hold no sections out",
        "check_mask": "always so: black or masked places are drawn again",
    }
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    for name, text in (
        ("coords", "file of the corners of stacks"),
        ("mask", "layer that marks defects, at mip 5"),
    ):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--source", required=True, help="layer; gs:// is added to a bare path")
    parser.add_argument(
        "--voxel-size-nm", nargs=3, type=float, help="of mip 0, z y x; then the layer is not read"
    )
    parser.add_argument("name", metavar="NAME", help="name of the dataset")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Command)
    add_train_options(verbs.add_parser("train"))
    add_stack_options(verbs.add_parser("gen_stack"))
    join = verbs.add_parser("combine_h5")
    join.add_argument("output", type=Path, help="the file to make; .h5 is added")
    join.add_argument("sources", type=Path, nargs="+")
    for name in ("net_hist", "nh"):
        history = verbs.add_parser(name)
        history.add_argument("name", nargs="?", help="a run; all runs if absent")
        history.add_argument("--runs", type=Path, default=Path("results/runs"))
    inspect = verbs.add_parser("inspect_enc")
    inspect.add_argument("--archive", type=Path, required=True, help="a model, or a .pt")
    inspect.add_argument("--network", help="the network whose weights a .pt holds")
    inspect.add_argument("--count", type=int, default=5, help="maps that are shown of each level")
    inspect.add_argument("--dataset", type=int, default=0, help="number of the stack in the file")
    inspect.add_argument("--section", type=int, default=0, help="section of the stack")
    inspect.add_argument("--output", type=Path, default=Path("encodings.png"))
    inspect.add_argument("stacks", type=Path, help="file of stacks")
    args, unknown = parser.parse_known_args(argv)
    verbs.choices[args.verb].refuse(unknown)
    return args


def options_of(args: argparse.Namespace, *own: str) -> Settings:
    """The options that were given, without our `own` and those that are None."""
    skipped = {"verb", "name", *own}
    return {k: v for k, v in vars(args).items() if k not in skipped and v is not None}


def write_new(kind: str, name: str, content: Settings, command: Sequence[str]) -> Path:
    """Writes a file of `config`; ConfigError if the name is taken by other content."""
    path, text = CONFIG / kind / f"{name}.yaml", as_yaml(content, command)
    taken = path.exists() and read_yaml(path) != load_yaml(text)
    if taken or (not path.exists() and name in names(kind)):
        raise ConfigError(
            f"there is a {kind[:-1]} {name!r} with other settings, and it is not overwritten as in "
            f"SEAMLeSS; choose another name, or delete {path}"
        )
    return atomic_write(path, text)


def write_network(args: argparse.Namespace, command: Sequence[str]) -> None:
    """Writes the network of an experiment."""
    content = network_of_options(args.name, options_of(args))
    print(write_new("networks", args.name, content, command))
    if "composition" in content:
        print("  composition additive: as archives of 2018 (.pt) were trained")
    print(
        f"Train it with: snakemake --use-singularity train_DATASET_{args.name} "
        f"--config run={args.name}"
    )


def opened_layer(path: str, voxel_size_nm: NmTriple | None) -> SampledLayer:
    """The layer at an address, which is not read if its voxel size is given.

    ConfigError if it cannot be read.
    """
    if voxel_size_nm is not None:
        return SampledLayer(path, voxel_size_nm)
    try:
        volume = open_image(Source.model_validate({"path": path, "array": "", "mip": 0}))
    except RetraceError as error:
        raise ConfigError(
            f"--source: {error}; for a layer out of reach from here give --voxel-size-nm Z Y X"
        ) from None
    box = volume.box.to_nm(volume.voxel_size_nm)
    return SampledLayer(path, nm_triple(volume.voxel_size_nm), box)


def write_dataset(args: argparse.Namespace, command: Sequence[str]) -> None:
    """Writes the dataset that stacks are sampled from."""
    size = None if args.voxel_size_nm is None else nm_triple(args.voxel_size_nm)
    layer = opened_layer(layer_address(args.source), size)
    content = dataset_of_options(args.name, options_of(args, "source", "voxel_size_nm"), layer)
    print(write_new("datasets", args.name, content, command))
    print(f"Sample the stacks with: snakemake --use-singularity stacks_{args.name}")


def combine(args: argparse.Namespace) -> None:
    """Copies the data sets of several files into one."""
    output = args.output
    if output.suffix not in H5_SUFFIXES:  # a point may be part of the name
        output = output.with_name(f"{output.name}.h5")
    for name, count in combine_stack_files(output, args.sources).items():
        print(f"{output}: {name} ({count} stacks)")


def inspect(args: argparse.Namespace) -> None:
    """Draws the encodings of one section."""
    inspect_encodings(
        args.archive,
        args.stacks,
        stack=args.dataset,
        section=args.section,
        maps=args.count,
        output=args.output,
        name=args.network,
    )
    print(args.output)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    command = [shlex.quote(word) for word in (sys.argv[1:] if argv is None else argv)]
    if args.verb == "train":
        write_network(args, command)
    elif args.verb == "gen_stack":
        write_dataset(args, command)
    elif args.verb == "combine_h5":
        combine(args)
    elif args.verb == "inspect_enc":
        inspect(args)
    else:
        print_lineage(args.runs, args.name)


if __name__ == "__main__":
    run(main)
