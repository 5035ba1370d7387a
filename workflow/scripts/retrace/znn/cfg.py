"""Reader of `.cfg` files, the parameters of ZNN's training and prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from retrace.errors import ConfigError, nearest
from retrace.znn.ini_sections import read_sections
from retrace.znn.parameters import (
    ConvMode,
    CostFunction,
    MalisNorm,
    OutType,
    RebalanceMode,
    ZnnConfig,
)
from retrace.znn.values import WrittenValue, find_file

SECTION = "parameters"
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
    for part in field.text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise field.error("numbers and ranges of samples, such as 2-3,7")
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(numbers)


Reader = Callable[[WrittenValue], Any]

READERS: dict[str, Reader] = {
    "fnet_spec": lambda f: f.text or None,
    "fdata_spec": lambda f: f.text or None,
    "num_threads": lambda f: f.integer(),
    "dtype": lambda f: f.choice(("float32", "float64")),
    "out_type": _out_type,
    "train_net_prefix": lambda f: f.text.removesuffix(".h5") or None,
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
    "logging",
    "is_visual",
    "is_train_optimize",
    "is_forward_optimize",
    "force_fft",
    "is_rebalance",
    "is_patch_rebalance",
)
"""Parameters of earlier versions that published files still have. Those of rebalancing have no
effect, as in ZNN; those of convolutions count where no `..._conv_mode` is given."""


def read_cfg(path: Path) -> ZnnConfig:
    """All parameters of a `.cfg` file; paths are resolved.

    ConfigError names file, line, parameter and what is allowed.
    """
    sections = read_sections(path, ".cfg file")
    if SECTION not in sections:
        raise ConfigError(f"{path} has no section [{SECTION}]; sections: {', '.join(sections)}")
    written = _renamed(sections[SECTION])
    values = {name: read(written[name]) for name, read in READERS.items() if name in written}
    values |= _conv_modes(written, values)
    for name in ("fnet_spec", "fdata_spec"):
        if values.get(name):
            values[name] = str(_existing(written[name], path))
    if values.get("train_net_prefix"):
        values["train_net_prefix"] = str(_base(written, path) / values["train_net_prefix"])
    if values.get("forward_net"):
        values["forward_net"] = str(find_file(values["forward_net"], path))
    config = ZnnConfig.model_validate(values)
    if "max_iter" in written and config.max_iter <= config.num_iter_per_save:
        raise written["max_iter"].error(
            f"numbers above Num_iter_per_save, which is {config.num_iter_per_save}"
        )
    return config


def _renamed(fields: Mapping[str, WrittenValue]) -> dict[str, WrittenValue]:
    """Parameters by their current names; ConfigError for a name that ZNN does not have."""
    renamed: dict[str, WrittenValue] = {}
    for name, field in fields.items():
        name = LEGACY.get(name, name)
        if name not in READERS and name not in WITHOUT_EFFECT:
            raise ConfigError(
                f"{field.where}: unknown parameter {name!r}; {nearest(name, READERS)}"
            )
        renamed.setdefault(name, field)
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


def _base(written: Mapping[str, WrittenValue], path: Path) -> Path:
    """Folder that relative paths of a .cfg start from.

    It is the working directory where the network's path exists from there, else the file's folder.
    """
    net = written.get("fnet_spec")
    return Path() if net and Path(net.text).exists() else path.parent


def _existing(field: WrittenValue, cfg: Path) -> Path:
    """The file that a parameter names; ConfigError if it does not exist."""
    path = find_file(field.text, cfg)
    if not path.is_file():
        raise ConfigError(
            f"{field.where}: {field.name} names {field.text}, which does not exist, neither "
            f"relative to {Path.cwd()} nor to {cfg.parent.resolve()}"
        )
    return path
