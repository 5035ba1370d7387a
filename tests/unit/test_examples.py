"""Data sets of single examples: files, splits, batches."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import elektronn
import examples
import tiny_digits as tiny
from retrace.checkpoints.safetensors import save_model
from retrace.config import compatibility, datasets, networks
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError, DataError
from retrace.formats.examples import ExampleSet, open_examples, read_idx
from retrace.formats.examples_source import ExamplesSource
from retrace.formats.safe_pickle import read_pickles
from retrace.networks import build_network
from retrace.planning.examples import predict_examples_job
from retrace.planning.examples_settings import ExamplesSettings
from retrace.planning.experiment import Planner
from retrace.planning.train_settings import TrainingExamples
from retrace.settings_model import as_json
from retrace.training.example_batches import open_example_batches

CPU = torch.device("cpu")


def open_split(settings: Any, split: str, **options: bool) -> ExampleSet:
    return open_examples(ExamplesSource.model_validate(settings), split, **options)


def examples_settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return tiny.dataset(tmp_path, **changes).examples.plain()


def test_splits_are_disjoint_drawn_by_the_seed_and_whole(tmp_path: Path) -> None:
    settings = examples_settings(tmp_path)
    train, held_out = (open_split(settings, s) for s in ("train", "validation"))
    again = open_split({**settings, "split_seed": 1}, "validation")
    everything = np.concatenate([train.values, held_out.values])

    assert (len(train), len(held_out), len(open_split(settings, "test"))) == (70, 20, 30)
    assert not np.array_equal(held_out.values, again.values)
    assert len(np.unique(everything.reshape(90, -1), axis=0)) == 90
    assert train.values.dtype == np.float32
    assert train.values.max() <= 1


def test_without_test_files_the_held_out_examples_are_scored(tmp_path: Path) -> None:
    settings = examples_settings(tmp_path, test=None)
    held_out, test = (open_split(settings, s) for s in ("validation", "test"))

    assert np.array_equal(held_out.values, test.values)


def test_fewer_labels_for_classifiers_and_all_images_for_autoencoders(tmp_path: Path) -> None:
    settings = examples_settings(tmp_path, labelled=10)

    assert len(open_split(settings, "train")) == 10
    assert len(open_split(settings, "train", with_unlabelled=True)) == 70
    assert len(open_split(settings, "validation")) == 20


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_pickled_archive(tmp_path: Path, protocol: int) -> None:
    """Three splits of vectors in one pickle, as mnist.pkl.gz."""
    values = np.linspace(0, 1, 6 * 144, dtype=np.float32).reshape(6, 144)
    labels = np.array([0, 1, 2, 0, 1, 2])
    parts = tuple((values + n, labels) for n in range(3))
    path = tmp_path / "bars.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(parts, protocol)))
    settings = {"archive": {"path": str(path)}, "classes": 3, "split_seed": 0}

    assert np.array_equal(open_split(settings, "test").values, values + 2)
    shaped = open_split({**settings, "image_shape": [12, 12]}, "train")
    assert shaped.values.shape == (6, 12, 12)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/retrace-evil"),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")

    with pytest.raises(DataError, match=r"os\.system, which is not allowed"):
        read_pickles(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"Path\.touch, which is not allowed"):
        read_pickles(path)


class PointingArray:
    """Rebuilds an array whose dtype claims that its bytes are pointers."""

    def __reduce__(self) -> tuple[Any, ...]:
        pointers = np.dtype("O")
        state = (1, (1,), pointers, False, b"\x10" * 8)
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state  # type: ignore[attr-defined]


def test_pickles_of_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    loop: list[Any] = []
    loop.append(loop)
    deep = b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."  # 10,000 lists, one in the other
    cases = [pickle.dumps(v) for v in (PointingArray(), np.array([{}]), loop)]
    for content in (*cases, gzip.compress(cases[0])[:-4], b"<html>", b""[:0] + b"\x80\x05"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.pkl (cannot be read|is a web page).*refused"):
            read_pickles(path)
    path.write_bytes(deep)
    with pytest.raises(DataError, match="nested too deeply"):
        read_pickles(path)


def test_vectors_from_npy_and_h5(tmp_path: Path) -> None:
    values, labels = np.random.default_rng(0).random((8, 5)), np.arange(8) % 2
    np.save(tmp_path / "values.npy", values)
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["lab"] = labels
    settings = {
        "train": {
            "values": {"path": str(tmp_path / "values.npy")},
            "labels": {"path": str(tmp_path / "labels.h5"), "array": "lab"},
        },
        "held_out": 2,
        "split_seed": 0,
        "classes": 2,
    }

    assert open_split(settings, "train").values.shape == (6, 5)
    with h5py.File(tmp_path / "labels.h5", "a") as file:
        file["unsigned"] = np.where(labels, 2**64 - 1, 0).astype(np.uint64)
    settings["train"]["labels"]["array"] = "unsigned"
    with pytest.raises(
        DataError, match=r"labels\.h5: the array of labels has 18446744073709551615"
    ):
        open_split(settings, "train")
    settings["train"]["labels"]["array"] = "labels"
    with pytest.raises(DataError, match="it has: lab"):
        open_split(settings, "train")


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    values, _ = tiny.images(5)
    short = tmp_path / "short-ubyte"
    short.write_bytes(tiny.idx(values)[:-10])
    with pytest.raises(DataError, match="short-ubyte has .* for 5x12x12 values"):
        read_idx(short)
    short.write_bytes(gzip.compress(tiny.idx(values))[:-20])
    with pytest.raises(DataError, match="damaged"):
        read_idx(short)
    short.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(short)


def test_labels_outside_the_classes_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels range from 0 to 2"):
        open_split(examples_settings(tmp_path, classes=2), "train")
    missing = examples_settings(tmp_path)
    missing["train"]["values"]["path"] = "data/none.gz"
    with pytest.raises(DataError, match=r"data/none\.gz does not exist; put the file there"):
        open_split(missing, "train")
    other = examples_settings(tmp_path)
    other["train"]["labels"] = other["test"]["labels"]
    with pytest.raises(DataError, match="90 examples and 30 labels"):
        open_split(other, "train")
    with pytest.raises(DataError, match="leaves none"):
        open_split(examples_settings(tmp_path, held_out=90), "train")


def test_a_batch_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    net = tiny.network(data)
    one, other = (open_example_batches(net, data, 3, CPU) for _ in range(2))
    forwards = [one.batch(n, warp=True) for n in range(20)]
    backwards = [other.batch(n, warp=True) for n in reversed(range(20))][::-1]

    for here, there in zip(forwards, backwards, strict=True):
        assert torch.equal(here["input"], there["input"])
        assert torch.equal(here["target"], there["target"])
    assert not torch.equal(forwards[0]["input"], forwards[1]["input"])
    different = open_example_batches(net, data, 4, CPU).batch(0, warp=True)
    assert not torch.equal(different["input"], forwards[0]["input"])


def test_every_example_is_seen_once_an_epoch(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    batches = open_example_batches(tiny.network(data, batch_size=7), data, 0, CPU)
    first = np.concatenate([batches._index(n) for n in range(10)])
    second = np.concatenate([batches._index(n) for n in range(10, 20)])

    assert sorted(first) == sorted(second) == list(range(70))
    assert list(first) != list(second)


def test_warping_changes_training_and_never_what_is_measured(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    batches = open_example_batches(tiny.network(data), data, 0, CPU)
    warped, plain = (batches.batch(0, warp=on)["input"] for on in (True, False))
    (held_out,) = batches.monitor("validation", 100)

    assert warped.shape == plain.shape == (8, 1, 10, 10)
    assert not torch.equal(warped, plain)
    expected = open_split(data.examples, "validation").values[:, 1:11, 1:11]
    assert np.allclose(held_out["input"][:, 0].numpy(), expected - batches.mean, atol=1e-6)


def test_shifts_are_those_of_the_original(tmp_path: Path) -> None:
    """26 of 28 pixels begin at 0 or 1 there; 10 of 12 here."""
    data = tiny.dataset(tmp_path)
    batches = open_example_batches(tiny.network(data), data, 0, CPU)
    shifts = set()
    for number in range(8):
        cut = batches.batch(number, warp=False)["input"][:, 0]
        whole = batches._values[torch.from_numpy(batches._index(number))]
        for small, large in zip(cut, whole, strict=True):
            places = [(y, x) for y in range(3) for x in range(3)]
            shifts |= {
                (y, x) for y, x in places if torch.equal(small, large[y : y + 10, x : x + 10])
            }

    assert shifts == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_distortion_moves_each_image_by_its_own_draw(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    own = {"rotation": 20, "shift": 1, "elastic": 1, "scale": 0.1, "shear": 5}
    net = tiny.network(data, distort=own, shift_augment=False, desired_input=12)
    batches = open_example_batches(net, data, 0, CPU)
    bent, plain = (batches.batch(0, warp=on)["input"] for on in (True, False))

    assert bent.shape == plain.shape
    assert float((bent - plain).abs().mean()) > 0.01
    assert torch.equal(bent, batches.batch(0, warp=True)["input"])
    still = tiny.network(data, distort={}, shift_augment=False, desired_input=12)
    same = open_example_batches(still, data, 0, CPU).batch(0, warp=False)["input"]
    assert torch.equal(same, plain)


def test_vectors_are_the_warped_images(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    flat = tiny.network(
        data, mode="vect-scalar", desired_input=100, filters=[], pool=[], nof_filters=[]
    )
    images, vectors = (
        open_example_batches(net, data, 0, CPU).batch(2, warp=True)["input"]
        for net in (tiny.network(data), flat)
    )

    assert torch.equal(images.flatten(1), vectors)


def test_an_invalid_size_is_refused_with_the_nearest_valid_ones(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path)
    net = tiny.network(data, shift_augment=False)
    with pytest.raises(
        ConfigError, match=r"desired_input \[10, 10\], and an example has \[12, 12\]"
    ):
        open_example_batches(net, data, 0, CPU)


def test_incompatible_pairs_are_refused_with_the_reason() -> None:
    digits, volumes = datasets.load_dataset("mnist"), datasets.load_dataset("phantom")
    with pytest.raises(ConfigError, match=r"'mnist' has single images .* cnn_warp"):
        networks.network_for("mtlsd", digits)
    with pytest.raises(ConfigError, match="gives one class for a whole image"):
        networks.network_for("cnn_warp", volumes)
    with pytest.raises(ConfigError, match="nothing to segment; it can be: train, predict"):
        compatibility.check_verb(digits, "segment")


def test_a_dataset_of_examples_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`held_out` is needed"):
        tiny.dataset(tmp_path, held_out=None)
    with pytest.raises(ConfigError, match="did you mean 'held_out'"):
        tiny.dataset(tmp_path, heldout=3)
    with pytest.raises(ConfigError, match="either `archive`, or `train`"):
        tiny.dataset(tmp_path, archive={"path": "x.pkl.gz"})


@pytest.mark.realdata
def test_5000_of_mnists_60000_are_held_out(shared_dir: Path) -> None:
    files = {
        "values": {"path": str(shared_dir / "data/mnist/train-images-idx3-ubyte.gz")},
        "labels": {"path": str(shared_dir / "data/mnist/train-labels-idx1-ubyte.gz")},
    }
    settings = {"classes": 10, "train": files, "held_out": 5000, "split_seed": 0}

    held_out = open_split(settings, "validation")
    assert held_out.values.shape == (5000, 28, 28)
    assert read_idx(Path(files["labels"]["path"])).shape == (60000,)
    assert len(np.unique(held_out.labels)) == 10


def test_an_exported_param_predicts_like_its_model(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path, labelled=10)
    network = tiny.network(data)
    content = {"name": data.name, "examples": data.examples}
    settings = ExamplesSettings(dataset=content, network=network, seed=0, device="cpu")
    trained, param, imported = (tmp_path / n for n in ("a.safetensors", "b.param", "c.safetensors"))
    module = build_network(network, seed=3)
    training = TrainingExamples(name=data.name, examples=data.examples)
    mean = open_example_batches(network, training, 0, CPU).mean
    save_model(trained, module, {"network": network.plain(), "input_mean": mean})

    elektronn.main(["network", "--model", str(trained), "--output", str(param)])
    conversion = as_json({"dataset": data.name, "network": network})
    options = ["--settings", conversion, "--param", str(param), "--output", str(imported)]
    elektronn.main(["model", *options])
    expected, metadata = examples.predictions(settings, trained)
    again, of_import = examples.predictions(settings, imported)

    np.testing.assert_array_equal(again, expected)
    assert of_import["input_mean"] == metadata["input_mean"] == mean > 0


def test_predictions_of_a_param_read_the_training_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {}
    for settings in ({}, {"weights": "published", "init": "a.param"}):
        config = WorkflowConfig.model_validate(settings).complete(deep=True)
        job = predict_examples_job(Planner(tmp_path, config), "mnist", "cnn_warp")
        files[bool(settings)] = {Path(path).name for path in job.prerequisites}

    assert all("t10k" in name for name in files[False])
    assert any("train-images" in name for name in files[True] - files[False])
