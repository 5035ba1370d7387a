"""Reader of `.cfg` files, the parameters of ZNN's training and prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from retrace.errors import ConfigError, nearest
from retrace.limits import ZNN_SAMPLES
from retrace.znn.ini_sections import read_sections
from retrace.znn.parameters import (
    ConvMode,
    CostFunction,
    MalisNorm,
    OutType,
    RebalanceMode,
    ZnnConfig,
)
from retrace.znn.paths import named_file, output_prefix
from retrace.znn.values import WrittenValue

SECTION = "parameters"
NAMED_PARAMETERS = ("fnet_spec", "fdata_spec", "forward_net")
"""Parameters that name a file that is read."""
FOLDER_PARAMETERS = ("train_net_prefix", "output_prefix")
"""Parameters that name the start of the paths of files that are written."""
CONV_MODES: tuple[str, ...] = get_args(ConvMode)
COST_FUNCTIONS: tuple[str, ...] = get_args(CostFunction)
OUT_TYPES: tuple[str, ...] = get_args(OutType)


def _conv_mode(field: WrittenValue) -> str | None:
    return None if field.text.lower() in ("", "none") else field.choice(CONV_MODES)


def _rebalance(field: WrittenValue) -> str:
    """`none` switches rebalancing off. In ZNN the word switched global rebalancing on."""
    return field.choice(get_args(RebalanceMode))


def _cost(field: WrittenValue) -> str:
    """The cost function; ZNN compares parts of words, so that `softmax` is softmax_loss."""
    for part, full in (
        ("square-square", COST_FUNCTIONS[2]),
        ("square", COST_FUNCTIONS[1]),
        ("binomial", COST_FUNCTIONS[3]),
    ):
        if part in field.text:
            return full
    return COST_FUNCTIONS[4] if "softmax" in field.text else field.choice(COST_FUNCTIONS)


def _out_type(field: WrittenValue) -> str:
    for part, full in (("boundary", "boundary"), ("affin", "affinity"), ("semantic", "semantic")):
        if part in field.text:
            return full
    return field.choice(OUT_TYPES)


def _fraction(field: WrittenValue) -> float:
    return field.number(0, 1)


def _count(field: WrittenValue) -> int:
    return field.integer(1)


def _norm(field: WrittenValue) -> str:
    """The norm; `constrain` has no effect, as in ZNN."""
    return "none" if field.text == "constrain" else field.choice(get_args(MalisNorm))


def _sample_numbers(field: WrittenValue) -> list[int]:
    """Numbers of samples, such as `2-3,7`, in ascending order."""
    numbers: set[int] = set()
    for part in field.text.split(",") if field.text else ():
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        selected = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if not selected:
            raise field.error("numbers and rising ranges of samples, such as 2-3,7")
        if len(numbers) + len(selected) > ZNN_SAMPLES:
            raise field.error(f"at most {ZNN_SAMPLES} samples")
        numbers |= set(selected)
    return sorted(numbers)


Reader = Callable[[WrittenValue], Any]

READERS: dict[str, Reader] = {
    "fnet_spec": lambda f: f.text or None,
    "fdata_spec": lambda f: f.text or None,
    "num_threads": lambda f: f.integer(),
    "dtype": lambda f: f.choice(("float32", "float64")),
    "out_type": _out_type,
    "train_net_prefix": lambda f: f.text or None,
    "train_range": _sample_numbers,
    "test_range": _sample_numbers,
    "forward_range": _sample_numbers,
    "eta": lambda f: f.number(0),
    "anneal_factor": _fraction,
    "momentum": _fraction,
    "weight_decay": _fraction,
    "num_iter_per_annealing": _count,
    "train_outsz": lambda f: f.shape(),
    "train_conv_mode": _conv_mode,
    "forward_conv_mode": _conv_mode,
    "is_data_aug": lambda f: f.boolean(),
    "is_bd_mirror": lambda f: f.boolean(),
    "rebalance_mode": _rebalance,
    "cost_fn": _cost,
    "is_malis": lambda f: f.boolean(),
    "malis_norm_type": _norm,
    "is_constrained_malis": lambda f: f.boolean(),
    "logging": lambda f: f.boolean(),
    "is_stdio": lambda f: f.boolean(),
    "is_debug": lambda f: f.boolean(),
    "is_check": lambda f: f.boolean(),
    "num_iter_per_show": _count,
    "num_iter_per_test": _count,
    "test_num": _count,
    "num_iter_per_save": _count,
    "max_iter": _count,
    "forward_net": lambda f: f.text or None,
    "forward_outsz": lambda f: f.shape(),
    "output_prefix": lambda f: f.text or None,
}
"""Parameters in lower case, and how each is read; `ZnnConfig` has their defaults."""

LEGACY = {
    "train_net": "train_net_prefix",
    "train_save_net": "train_net_prefix",
    "train_load_net": "forward_net",
    "train_seed_net": "forward_net",
}
"""Earlier names of parameters."""

WITHOUT_EFFECT = (
    "is_visual",
    "is_train_optimize",
    "is_forward_optimize",
    "force_fft",
    "is_rebalance",
    "is_patch_rebalance",
)
"""Parameters of earlier versions that published files still have. Those of rebalancing have no
effect, as in ZNN; those of convolutions count where no `..._conv_mode` is given."""


NET = "net"
"""What names of networks start with where `train_net` is a folder: net_current.h5."""


def read_cfg(path: Path) -> ZnnConfig:
    """All parameters of a `.cfg` file; paths are resolved.

    ConfigError names file, line, parameter and what is allowed. That the file of `forward_net`
    exists is not checked: a training may write it.
    """
    written = written_cfg(path)
    values = {name: read(written[name]) for name, read in READERS.items() if name in written}
    values |= _conv_modes(written, values)
    config = ZnnConfig.model_validate({**values, **_paths(path, written, values)})
    if "max_iter" in written and config.max_iter <= config.num_iter_per_save:
        raise written["max_iter"].error(
            f"numbers above Num_iter_per_save, which is {config.num_iter_per_save}"
        )
    return config


def written_cfg(path: Path) -> dict[str, WrittenValue]:
    """The parameters of a `.cfg` that count, as written, by their current names."""
    return _renamed(_fields(path))


def _paths(
    path: Path, written: Mapping[str, WrittenValue], values: Mapping[str, Any]
) -> dict[str, str]:
    """The paths that parameters name, relative to the working directory.

    Written paths are relative to the folder in which the network of fnet_spec is named: that of
    the .cfg, as in ZNN, or else the working directory.
    """
    named = {
        name: named_file(written[name], (path.parent, Path()))
        for name in NAMED_PARAMETERS
        if values.get(name)
    }
    paths = {n: str(f.path if n == "forward_net" else f.check()) for n, f in named.items()}
    base = named["fnet_spec"].folder if "fnet_spec" in named else path.parent
    if values.get("train_net_prefix"):
        prefix = output_prefix(values["train_net_prefix"], base, NET)
        paths["train_net_prefix"] = prefix.removesuffix(".h5")
    if values.get("output_prefix"):
        paths["output_prefix"] = output_prefix(values["output_prefix"], base)
    return paths


def _fields(path: Path) -> dict[str, WrittenValue]:
    """The parameters of a file by the names that it uses."""
    sections = read_sections(path, ".cfg file")
    if SECTION not in sections:
        raise ConfigError(
            f"{path} has no section [{SECTION}]; sections: {', '.join(sections) or 'none'}. Write "
            f"[{SECTION}] above the parameters, or correct the path"
        )
    if other := next((name for name in sections if name != SECTION), None):
        raise ConfigError(
            f"{path} has a section [{other}], which nothing reads; move its parameters to "
            f"[{SECTION}], and samples to the .spec"
        )
    return sections[SECTION]


def unused_parameters(path: Path) -> list[str]:
    """A line for each parameter of a `.cfg` that is set and has no effect here, with the reason."""
    fields = _fields(path)
    written = _renamed(fields)
    reasons = {
        name: f"{written[current].name} decides"
        for name, current in LEGACY.items()
        if name in fields and written.get(current) is not fields[name]
    }
    reasons |= {
        "num_threads": "threads are those of `snakemake --cores`",
        "is_debug": "patches are not saved with the network",
        "is_check": "patches are not checked",
        "is_visual": "nothing is drawn, as in ZNN",
        "is_rebalance": "rebalance_mode alone decides, as in ZNN",
        "is_patch_rebalance": "rebalance_mode alone decides, as in ZNN",
    }
    if not _is_set(written.get("is_malis")):
        without = "weights are those of MALIS, and is_malis is off"
        reasons |= {"malis_norm_type": without, "is_constrained_malis": without}
    if not written.get("train_net_prefix"):
        reasons["logging"] = "logs are written at train_net_prefix, which is missing"
    for verb in ("train", "forward"):
        if f"{verb}_conv_mode" in written:
            reasons[f"is_{verb}_optimize"] = f"{verb}_conv_mode decides"
    if {"train_conv_mode", "forward_conv_mode"} <= written.keys():
        reasons["force_fft"] = "the conv modes decide"
    return [
        f"{fields[name].where}: {name} = {fields[name].text} has no effect: {reason}"
        for name, reason in reasons.items()
        if _is_set(fields.get(name))
    ]


def _is_set(field: WrittenValue | None) -> bool:
    """Whether a parameter is given, and neither off, 0 nor none."""
    return field is not None and field.text.lower() not in ("", "0", "none", "no", "false", "off")


def _renamed(fields: Mapping[str, WrittenValue]) -> dict[str, WrittenValue]:
    """Parameters by their current names; ConfigError for a name that ZNN does not have.

    An earlier name counts where it has a value and the current one is not in the file.
    """
    renamed = {name: field for name, field in fields.items() if name not in LEGACY}
    for name, field in renamed.items():
        if name not in READERS and name not in WITHOUT_EFFECT:
            raise ConfigError(
                f"{field.where}: unknown parameter {name!r}; {nearest(name, READERS)}"
            )
    for name in LEGACY:
        if name in fields and fields[name].text:
            renamed.setdefault(LEGACY[name], fields[name])
    return renamed


def _conv_modes(written: Mapping[str, WrittenValue], values: Mapping[str, Any]) -> dict[str, str]:
    """Both convolution modes; where one is not given, earlier parameters select it."""
    return {
        f"{verb}_conv_mode": values.get(f"{verb}_conv_mode") or _earlier_conv_mode(written, verb)
        for verb in ("train", "forward")
    }


def _earlier_conv_mode(written: Mapping[str, WrittenValue], verb: str) -> str:
    optimize, force_fft = written.get(f"is_{verb}_optimize"), written.get("force_fft")
    if optimize and optimize.boolean():
        return "optimize"
    return "fft" if force_fft and force_fft.boolean() else "direct"
