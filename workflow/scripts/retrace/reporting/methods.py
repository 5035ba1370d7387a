"""A methods paragraph about an experiment, written from its configuration and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.config.dataset_model import Entry
from retrace.config.families import family_named
from retrace.config.network_settings import NetworkSettings
from retrace.planning.report_settings import ExperimentSettings, ReportedDataset
from retrace.planning.segment_settings import SegmentationSettings


def methods_paragraph(
    experiment: ExperimentSettings, history: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> str:
    """Sentences on the network, training, segmentation and evaluation of an experiment.

    `history`, `evaluation`: contents of training.json and evaluation.json.
    """
    network, dataset = experiment.network, experiment.dataset
    sentences = [_network(network, dataset), _training(network, dataset, history)]
    if "threshold" in evaluation:
        sentences.append(_segmentation(experiment.segment, dataset, evaluation))
    sentences.append(_evaluation(list(evaluation["volumes"])))
    return " ".join(sentences)


def _network(network: NetworkSettings, dataset: ReportedDataset) -> str:
    size = " × ".join(str(length) for length in dataset.voxel_size_nm)
    heads = [f"{head.name} ({head.channels})" for head in network.heads]
    reference = family_named(network.family, network.name).reference
    return (
        f"The network {network.name} of the family {network.family}"
        f"{f' ({reference})' if reference else ''} predicts {_and(heads) or 'its targets'} from "
        f"voxels of {size} nm (z, y, x)."
    )


def _training(
    network: NetworkSettings, dataset: ReportedDataset, history: Mapping[str, Any]
) -> str:
    trained = _and([_entry(entry) for entry in dataset.train])
    batch = history.get("batch_size", 1)
    optimizer = network.optimizer_in_words
    return (
        f"It was trained on {trained} of {dataset.name} for {history['iterations']:,} "
        f"iterations of {batch} sample{'s' if batch != 1 else ''}, seed {history['seed']}"
        f"{optimizer and f', with {optimizer}'}."
    )


def _segmentation(
    segment: SegmentationSettings, dataset: ReportedDataset, evaluation: Mapping[str, Any]
) -> str:
    dimensions = "section by section" if segment.fragments_in_xy else "in three dimensions"
    chosen = _and([_entry(entry) for entry in dataset.validation])
    return (
        f"Fragments came from a watershed {dimensions} and were {segment.joining}; "
        f"the threshold {evaluation['threshold']:g} was chosen on {chosen} "
        f"({evaluation['threshold_rule']})."
    )


def _evaluation(entries: Sequence[str]) -> str:
    return (
        f"Scores are those of {_and(entries)}, which neither training nor the threshold has seen."
    )


def _entry(entry: Entry) -> str:
    """A volume's name, with the box in nm where only a part is used."""
    if entry.roi_nm is None:
        return entry.volume
    ends = zip(entry.roi_nm.offset, entry.roi_nm.shape, strict=True)
    box = ", ".join(f"{begin}–{begin + length}" for begin, length in ends)
    return f"{entry.volume} ({box} nm)"


def _and(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
