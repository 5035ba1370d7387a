"""A methods paragraph about an experiment, written from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SOURCES = {
    "lsd": "Sheridan et al. 2023",
    "znn": "Zlateski et al. 2015; Lee et al. 2015",
    "elektronn": "Dorkenwald et al. 2017",
}
"""Who to cite for a family's networks."""


def paragraph(experiment: Mapping[str, Any]) -> str:
    """Sentences on the network, training, segmentation and evaluation of an experiment.

    `experiment` has `dataset`, `network` and `segment` settings, and the contents of training.json
    (`history`) and evaluation.json (`evaluation`).
    """
    sentences = [_network(experiment), _training(experiment)]
    if "threshold" in experiment["evaluation"]:
        sentences.append(_segmentation(experiment))
    sentences.append(_evaluation(experiment))
    return " ".join(sentences)


def _network(experiment: Mapping[str, Any]) -> str:
    network, dataset = experiment["network"], experiment["dataset"]
    size = " × ".join(str(length) for length in dataset["voxel_size_nm"])
    heads = [f"{head['name']} ({head['channels']})" for head in network.get("heads", [])]
    source = SOURCES.get(network["family"], "")
    return (
        f"The network {network['name']} of the family {network['family']}"
        f"{f' ({source})' if source else ''} predicts {_and(heads) or 'its targets'} from voxels "
        f"of {size} nm (z, y, x)."
    )


def _training(experiment: Mapping[str, Any]) -> str:
    history, dataset = experiment["history"], experiment["dataset"]
    trained = _and([_entry(entry) for entry in dataset["train"]])
    batch = history.get("batch_size", 1)
    return (
        f"It was trained on {trained} of {dataset['name']} for {history['iterations']:,} "
        f"iterations of {batch} sample{'s' if batch != 1 else ''}, seed {history['seed']}"
        f"{_optimizer(experiment['network'])}."
    )


def _optimizer(network: Mapping[str, Any]) -> str:
    optimizer = network.get("optimizer")
    if optimizer and "lr" in optimizer:
        kind = str(optimizer.get("kind", "Adam"))
        return f", with {kind} at a learning rate of {optimizer['lr']:g}"
    if "eta" in network:
        momentum = network.get("momentum", 0)
        return f", with gradient descent (eta {network['eta']:g}, momentum {momentum:g})"
    return ""


def _segmentation(experiment: Mapping[str, Any]) -> str:
    segment, threshold = experiment["segment"], experiment["evaluation"]["threshold"]
    dimensions = "section by section" if segment.get("fragments_in_xy") else "in three dimensions"
    chosen = _and([_entry(entry) for entry in experiment["dataset"]["validation"]])
    return (
        f"Fragments came from a watershed {dimensions} and were agglomerated with "
        f"{segment['method']}; the threshold {threshold:g} had the least variation of information "
        f"on {chosen}."
    )


def _evaluation(experiment: Mapping[str, Any]) -> str:
    tested = _and(list(experiment["evaluation"]["volumes"]))
    return f"Scores are those of {tested}, which neither training nor the threshold has seen."


def _entry(entry: Mapping[str, Any]) -> str:
    """A volume's name, with the box in nm where only a part is used."""
    roi = entry.get("roi_nm")
    if not isinstance(roi, Mapping):
        return str(entry["volume"])
    ends = zip(roi["offset"], roi["shape"], strict=True)
    box = ", ".join(f"{begin}–{begin + length}" for begin, length in ends)
    return f"{entry['volume']} ({box} nm)"


def _and(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
