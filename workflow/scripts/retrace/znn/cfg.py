"""Reader of `.cfg` files: how ZNN trains and predicts.

Defaults are those of the program (seung-lab/znn-release, python/front_end/zconfig.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.znn.ini_sections import read_sections
from retrace.znn.values import Field, find_file

SECTION = "parameters"
CONV_MODES = ("fft", "direct", "optimize")
COSTS = ("auto", "square_loss", "square-square_loss", "binomial_cross_entropy", "softmax_loss")
REBALANCE = ("none", "global", "patch")
MALIS_NORMS = ("none", "frac", "num", "pair")
OUT_TYPES = ("boundary", "affinity", "semantic")


def _conv_mode(field: Field) -> str | None:
    return None if field.text.lower() in ("", "none") else field.choice(CONV_MODES)


def _rebalance(field: Field) -> str:
    """`none` means none here. In ZNN the word switched global rebalancing on."""
    return field.choice(REBALANCE)


def _cost(field: Field) -> str:
    """ZNN compares parts of words, so `softmax` is softmax_loss."""
    for part, full in (("square-square", COSTS[2]), ("square", COSTS[1]), ("binomial", COSTS[3])):
        if part in field.text:
            return full
    return COSTS[4] if "softmax" in field.text else field.choice(COSTS)


def _out_type(field: Field) -> str:
    for part, full in (("boundary", "boundary"), ("affin", "affinity"), ("semantic", "semantic")):
        if part in field.text:
            return full
    return field.choice(OUT_TYPES)


def _share(field: Field) -> float:
    return field.number(0, 1)


def _count(field: Field) -> int:
    return field.integer(1)


def _norm(field: Field) -> str:
    """`constrain` is read by ZNN and does nothing there either."""
    return "none" if field.text == "constrain" else field.choice(MALIS_NORMS)


def _numbers_of(field: Field) -> list[int]:
    """Numbers of samples: `2-3,7`."""
    found: set[int] = set()
    for part in field.text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise field.error("numbers and ranges of samples, such as 2-3,7")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


Reader = Callable[[Field], Any]

KNOWN: dict[str, tuple[Reader, Any]] = {
    "fnet_spec": (lambda f: f.text, None),
    "fdata_spec": (lambda f: f.text, None),
    "num_threads": (lambda f: f.integer(), 0),
    "dtype": (lambda f: f.choice(("float32", "float64")), "float32"),
    "out_type": (_out_type, "boundary"),
    "train_net_prefix": (lambda f: f.text.removesuffix(".h5"), None),
    "train_range": (_numbers_of, []),
    "test_range": (_numbers_of, []),
    "forward_range": (_numbers_of, []),
    "eta": (lambda f: f.number(0), 0.01),
    "anneal_factor": (_share, 1.0),
    "momentum": (_share, 0.0),
    "weight_decay": (_share, 0.0),
    "num_iter_per_annealing": (_count, 100),
    "train_outsz": (lambda f: list(f.shape()), [1, 100, 100]),
    "train_conv_mode": (_conv_mode, None),
    "forward_conv_mode": (_conv_mode, None),
    "is_data_aug": (lambda f: f.boolean(), False),
    "is_bd_mirror": (lambda f: f.boolean(), False),
    "rebalance_mode": (_rebalance, "none"),
    "cost_fn": (_cost, "auto"),
    "is_malis": (lambda f: f.boolean(), False),
    "malis_norm_type": (_norm, "none"),
    "is_constrained_malis": (lambda f: f.boolean(), False),
    "is_stdio": (lambda f: f.boolean(), False),
    "is_debug": (lambda f: f.boolean(), False),
    "is_check": (lambda f: f.boolean(), False),
    "num_iter_per_show": (_count, 100),
    "num_iter_per_test": (_count, 500),
    "test_num": (_count, 10),
    "num_iter_per_save": (_count, 1000),
    "max_iter": (_count, 400000),
    "forward_net": (lambda f: f.text, None),
    "forward_outsz": (lambda f: list(f.shape()), None),
    "output_prefix": (lambda f: f.text, None),
}
"""Parameters in lower case: how each is read, and its default."""

LEGACY = {
    "train_net": "train_net_prefix",
    "train_save_net": "train_net_prefix",
    "train_load_net": "forward_net",
    "train_seed_net": "forward_net",
}
"""Earlier names of parameters."""

IGNORED = (
    "logging",
    "is_visual",
    "is_train_optimize",
    "is_forward_optimize",
    "force_fft",
    "is_rebalance",
    "is_patch_rebalance",
)
"""Parameters that public configurations still have. ZNN reads those of rebalancing and drops them
again; those of convolutions count where no `..._conv_mode` is given."""


def read_cfg(path: Path) -> dict[str, Any]:
    """All parameters of a `.cfg`, lower case, defaults filled in, paths found.

    ConfigError names file, line, parameter and what is allowed.
    """
    sections = read_sections(path, ".cfg file")
    if SECTION not in sections:
        raise ConfigError(f"{path} has no section [{SECTION}]; sections: {', '.join(sections)}")
    given = _renamed(sections[SECTION])
    values = {
        name: reader(given[name]) if name in given else default
        for name, (reader, default) in KNOWN.items()
    }
    _old_conv_modes(given, values)
    if values["max_iter"] <= values["num_iter_per_save"] and "max_iter" in given:
        raise given["max_iter"].error(
            f"numbers above Num_iter_per_save, which is {values['num_iter_per_save']}"
        )
    for name in ("fnet_spec", "fdata_spec"):
        if values[name]:
            values[name] = str(_existing(given[name], path))
    if values["train_net_prefix"]:
        values["train_net_prefix"] = str(_base(given, path) / values["train_net_prefix"])
    if values["forward_net"]:
        values["forward_net"] = str(find_file(values["forward_net"], path))
    return values


def _renamed(fields: Mapping[str, Field]) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for name, field in fields.items():
        name = LEGACY.get(name, name)
        if name not in KNOWN and name not in IGNORED:
            raise ConfigError(f"{field.where}: unknown parameter {name!r}; {nearest(name, KNOWN)}")
        found.setdefault(name, field)
    return found


def _old_conv_modes(given: Mapping[str, Field], values: dict[str, Any]) -> None:
    for verb in ("train", "forward"):
        asked = given.get(f"is_{verb}_optimize")
        if values[f"{verb}_conv_mode"] is None and asked and asked.boolean():
            values[f"{verb}_conv_mode"] = "optimize"
        elif values[f"{verb}_conv_mode"] is None:
            force = given.get("force_fft")
            values[f"{verb}_conv_mode"] = "fft" if force and force.boolean() else "direct"


def _base(given: Mapping[str, Field], path: Path) -> Path:
    """Where the paths of a .cfg begin: where its network was found, or its own folder."""
    net = given.get("fnet_spec")
    return Path() if net and Path(net.text).exists() else path.parent


def _existing(field: Field, beside: Path) -> Path:
    path = find_file(field.text, beside)
    if not path.is_file():
        raise ConfigError(
            f"{field.where}: {field.name} names {field.text}, which there is not, neither from "
            f"{Path.cwd()} nor from {beside.parent.resolve()}"
        )
    return path
