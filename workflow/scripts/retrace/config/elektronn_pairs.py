"""Checks of networks of the family elektronn with a dataset, before anything runs."""

from __future__ import annotations

from retrace.config.compatibility import check_input
from retrace.config.dataset_model import Dataset
from retrace.config.datasets import is_planar
from retrace.config.elektronn_network import EXAMPLE_WEIGHTS, ElektronnNetworkSettings
from retrace.errors import ConfigError


def check_elektronn_pair(
    pair: str, dataset: Dataset, network: ElektronnNetworkSettings, verb: str
) -> None:
    """ConfigError for a dataset that the network cannot learn from or predict."""
    _check_border_sections(pair, dataset, network, verb)
    for channel in network.inputs[1:]:
        check_input(pair, dataset, network, channel)
    _check_lazy_labels(pair, dataset, network)
    _check_example_weights(pair, dataset, network)


def _check_border_sections(
    pair: str, dataset: Dataset, network: ElektronnNetworkSettings, verb: str
) -> None:
    """Membranes are scored in every section: a 3-D network must predict all of them."""
    if verb != "evaluate" or not is_planar(dataset):
        return
    if network.n_dim == 3 and network.predict_padding == "valid":
        raise ConfigError(
            f"{pair}: network {network.name!r} sees several sections and predicts none near the "
            f"border of a stack, and each section of dataset {dataset.name!r} is scored. Set "
            "`predict_padding: symmetric` in a network that `extends` it, or take n4 or vd2d"
        )


def _check_lazy_labels(pair: str, dataset: Dataset, network: ElektronnNetworkSettings) -> None:
    """Lazy labels name classes of the network, and `label_prop_thresh` needs lazy labels."""
    labels = network.n_lab or 0
    lazy = {n: v.lazy_labels for n, v in dataset.volumes.items() if v.lazy_labels is not None}
    if network.label_prop_thresh is not None and not lazy:
        raise ConfigError(
            f"{pair}: `label_prop_thresh` trains on predictions of classes without annotation, "
            f"and no volume of dataset {dataset.name!r} declares such classes; "
            "add `lazy_labels: {labelled: [...]}` to a volume, or drop it"
        )
    if lazy and network.target != "nll":
        raise ConfigError(
            f"{pair}: volume {next(iter(lazy))!r} has `lazy_labels`, which `target: "
            f"{network.target}` does not support; only nll does"
        )
    for name, classes in lazy.items():
        numbers = {*(classes.labelled or ()), *(classes.absent or ())}
        wrong = sorted(number for number in numbers if number >= labels)
        if wrong:
            raise ConfigError(
                f"{pair}: `lazy_labels` of volume {name!r} name {wrong}, and network "
                f"{network.name!r} has the classes 0 to {labels - 1}"
            )


def _check_example_weights(pair: str, dataset: Dataset, network: ElektronnNetworkSettings) -> None:
    if not network.use_example_weights:
        return
    if network.target != "nll":
        raise ConfigError(
            f"{pair}: `use_example_weights` needs `target: nll`, not {network.target!r}"
        )
    used = {entry.volume for entry in (*dataset.train, *dataset.validation)}
    for name in sorted(used):
        if EXAMPLE_WEIGHTS not in dataset.volumes[name].inputs:
            raise ConfigError(
                f"{pair}: `use_example_weights` needs weights of the voxels of volume {name!r}; "
                f"add `inputs: {{{EXAMPLE_WEIGHTS}: {{path: ...}}}}` to it"
            )
