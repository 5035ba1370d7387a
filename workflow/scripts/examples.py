"""Single examples such as MNIST's: predicts them, scores the predictions, draws training curves."""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from retrace import __version__
from retrace.checkpoints.safetensors import load_model
from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.config.sources import example_files
from retrace.device import choose_device
from retrace.errors import DataError, run
from retrace.evaluation.classification import (
    classification_picture,
    classification_scores,
    reconstruction_scores,
)
from retrace.files import atomic_write, read_parsed, write_json
from retrace.formats.examples import ExampleSet, open_examples
from retrace.formats.examples_source import ExamplesSource
from retrace.formats.h5_files import opened_h5
from retrace.inference.precision import prepare_precision
from retrace.networks import ElektronnNetwork, build_network
from retrace.planning.examples_settings import ExamplesSettings
from retrace.progress import progress
from retrace.reading import reading_content
from retrace.storage.manifest import input_digest, origin
from retrace.training.elektronn_curves import Losses, Rows, curve_pictures
from retrace.training.elektronn_pictures import reconstruction_picture
from retrace.training.example_batches import AT_ONCE, ExampleBatches, training_examples

RECONSTRUCTED = 200
"""Number of examples in the picture of an auto-encoder, as in ELEKTRONN."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    predict_args = verbs.add_parser("predict", help="probabilities, or reconstructions, as h5")
    add_job(predict_args, file=["model"])
    predict_args.add_argument("--output", required=True, type=Path, help="predictions.h5")
    evaluate_args = verbs.add_parser("evaluate", help="error and NLL")
    add_job(evaluate_args, file=["predictions"])
    evaluate_args.add_argument("--output", required=True, type=Path, help="evaluation.json")
    evaluate_args.add_argument("--plot", required=True, type=Path, help="evaluation.png")
    curves_args = verbs.add_parser("curves", help="history.csv and pictures of a training")
    add_job(curves_args, file=["history"], has_settings=False)
    curves_args.add_argument("--output", required=True, type=Path, help="folder")
    return parse_job(parser, argv)


def read_settings(args: argparse.Namespace) -> ExamplesSettings:
    """The settings of the job; ConfigError names a wrong one."""
    return check(ExamplesSettings, args.settings, "settings of examples.py")


def scored_split(source: ExamplesSource) -> str:
    """The name of the examples that are scored."""
    if source.test is not None or source.archive is not None:
        return "test"
    return f"{source.held_out} held out of the training files"


@torch.no_grad()
def predictions(settings: ExamplesSettings, model: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, K) or reconstructions (N, features) of the scored examples, and the
    metadata of the model.

    The weights of a .param come without the mean of their training examples, which is subtracted;
    it is then that of the dataset's own training examples.
    """
    network = settings.network
    device = choose_device(settings.device)
    bf16 = prepare_precision(settings.precision, "float32", device)
    module: ElektronnNetwork = build_network(network)
    metadata = load_model(model, module, network)
    module = module.to(device).eval()
    # The test split, or without test files the examples that were held out.
    examples = open_examples(settings.dataset.examples, "test")
    mean = metadata.get("input_mean")
    train = examples if mean is not None else training_examples(network, settings.dataset.examples)
    batches = ExampleBatches(network, train, examples, settings.seed, device, given_mean=mean)
    count = -(-len(examples) // AT_ONCE)
    outputs = []
    for batch in progress(batches.prepared(examples), count, "predict", "batches"):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            (output,) = module(batch["input"]).values()
        outputs.append(output.float().cpu().numpy())
        if not np.isfinite(outputs[-1]).all():
            raise DataError(f"{model} predicts NaN or infinity: its training diverged; train again")
    return np.concatenate(outputs), {**metadata, "input_mean": batches.mean}


def predict(args: argparse.Namespace) -> None:
    """Writes the predictions of the scored examples as h5."""
    settings = read_settings(args)
    split = scored_split(settings.dataset.examples)
    values, metadata = predictions(settings, args.model)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["predictions"] = values
        file.attrs["dataset"] = settings.dataset.name
        file.attrs["network"] = settings.network.name
        file.attrs["split"] = split
        file.attrs["iteration"] = metadata["iteration"]
        file.attrs["model_sha256"] = input_digest(args.model)
        file.attrs["input_mean"] = metadata["input_mean"]
        file.attrs["version"] = __version__
    atomic_write(args.output, content.getvalue())
    print(f"[predict] {len(values)} examples ({split}) -> {args.output}")


def evaluate(args: argparse.Namespace) -> None:
    """Writes the scores of predictions and a picture; DataError for those of other examples."""
    begun, settings = time.monotonic(), read_settings(args)
    source = settings.dataset.examples
    split = scored_split(source)
    with reading_content(args.predictions), opened_h5(args.predictions) as file:
        values, attributes = file["predictions"][...], dict(file.attrs)
    examples = open_examples(source, "test")
    if len(values) != len(examples) or attributes["split"] != split:
        raise DataError(
            f"{args.predictions} has {len(values)} predictions ({attributes['split']}), the "
            f"dataset {len(examples)} examples ({split}); predict again"
        )
    score = _classification if settings.network.autoencoder is None else _reconstruction
    scores = score(values, examples, float(attributes["input_mean"]), args.plot)
    files_of = split if source.test is not None else "train"
    files = [args.predictions, *map(Path, example_files(source, files_of))]
    content = {
        "dataset": settings.dataset.name,
        "network": settings.network.name,
        "split": split,
        "iteration": int(attributes["iteration"]),
        **scores,
        "origin": origin(files, settings.plain(), time.monotonic() - begun),
    }
    write_json(args.output, content)
    numbers = {k: v for k, v in scores.items() if isinstance(v, (int, float))}
    print(f"[evaluate] {split}: {numbers} -> {args.output}", flush=True)


def _classification(
    values: np.ndarray, examples: ExampleSet, mean: float, plot: Path
) -> dict[str, Any]:
    images = examples.values if examples.values.ndim == 3 else None
    classification_picture(values, examples.labels, images, plot)
    return classification_scores(values, examples.labels)


def _reconstruction(
    values: np.ndarray, examples: ExampleSet, mean: float, plot: Path
) -> dict[str, Any]:
    data = examples.values.reshape(len(values), -1) - mean
    shape = examples.values.shape[1:] if examples.values.ndim == 3 else (1, data.shape[1])
    first, second = (part[:RECONSTRUCTED].reshape(-1, *shape) for part in (data, values))
    reconstruction_picture(first, second, plot)
    return reconstruction_scores(values, data)


def curves(args: argparse.Namespace) -> None:
    """Writes history.csv and pictures of a training."""
    rows, losses = read_parsed(args.history, _measured)
    for path in curve_pictures(rows, losses, args.output):
        print(f"[curves] {path}")


def _measured(content: Any) -> tuple[Rows, Losses]:
    """The measurements and the losses in training.json."""
    losses = [
        (int(row["iteration"]), math.nan if row["loss"] is None else float(row["loss"]))
        for row in content["history"]
    ]
    return content["learning_curve"], losses


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; `argv` without the program's name."""
    args = parse_args(argv)
    {"predict": predict, "evaluate": evaluate, "curves": curves}[args.verb](args)


if __name__ == "__main__":
    run(main)
