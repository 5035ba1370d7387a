"""Prints what is known about arrays, and who states it: the file, the config, or nobody.

    describe.py FILE:ARRAY [FILE:ARRAY ...] [--voxel-size-nm Z,Y,X] [--axes AXES] [--mip N]
    describe.py --dataset NAME

FILE is a path or an address, as in a dataset's file; :ARRAY is left out where there is one array.
Each line has a property, its value, and how it is stated. The exit status is 1 only if something
is refused, not if something is unknown. No data are read, but all chunks of a
local zarr, n5 or h5 are looked for. docs/reference/formats.md lists what is read of each format.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from retrace.command_line import as_number
from retrace.config.dataset_model import Dataset
from retrace.config.datasets import load_dataset
from retrace.config.schema import check
from retrace.errors import ConfigError, DataError, RetraceError, run
from retrace.formats.source import Source
from retrace.planning.volume_layout import named_sources
from retrace.remote.addresses import path_and_array
from retrace.storage.stated import Property, properties


def _numbers(text: str) -> list[float]:
    return [as_number(part) for part in text.split(",")]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arrays", nargs="*", metavar="FILE:ARRAY")
    parser.add_argument("--dataset", metavar="NAME", help="all sources of config/datasets/NAME")
    parser.add_argument("--voxel-size-nm", type=_numbers, metavar="Z,Y,X")
    parser.add_argument("--axes", help="order of the stored axes, such as xyz")
    parser.add_argument("--mip", type=int, default=0, help="level of an image or layer")
    return parser.parse_args(argv)


def sources(args: argparse.Namespace) -> Iterator[tuple[str, Source]]:
    """The names and sources that the command line asks for."""
    for text in args.arrays:
        path, array = path_and_array(text)
        content = {"path": path, "array": array, "voxel_size_nm": args.voxel_size_nm}
        yield text, check(Source, {**content, "axes": args.axes, "mip": args.mip}, text)
    if args.dataset is not None:
        yield from _sources_of_dataset(args.dataset)


def _sources_of_dataset(name: str) -> Iterator[tuple[str, Source]]:
    dataset = load_dataset(name)
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"the dataset {name} has examples and no volumes; name its files")
    for volume, content in dataset.volumes.items():
        for part, source in named_sources(content):
            yield f"{name} {volume} {part}: {source.path} {source.array}".rstrip(), source


def text_of(known: Sequence[Property]) -> str:
    """The properties of one array, a line each, in columns."""
    width = max(32, *(len(each.value) for each in known))
    return "\n".join(
        f"  {each.name:<13} {each.value:<{width}} {_stated(each)}".rstrip() for each in known
    )


def _stated(each: Property) -> str:
    if each.is_refused:
        return each.statement
    return f"{each.stated_by}{f': {each.statement}' if each.statement else ''}"


def describe(named: Mapping[str, Source]) -> list[str]:
    """Prints the properties of each source; the names of those that cannot be read."""
    refused = []
    for name, source in named.items():
        print(name)
        try:
            known = list(properties(source))
        except RetraceError as error:
            known = [Property("all", "refused", "unknown", str(error), is_refused=True)]
        print(text_of(known), flush=True)
        if any(each.is_refused for each in known):
            refused.append(name)
    return refused


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name. DataError if a source cannot be read."""
    named = dict(sources(parse_args(argv)))
    if not named:
        raise ConfigError("nothing to describe; name FILE:ARRAY or --dataset NAME")
    if refused := describe(named):
        raise DataError(f"{len(refused)} of {len(named)} sources cannot be read: see `refused`")


if __name__ == "__main__":
    run(main)
