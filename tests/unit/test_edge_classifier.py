"""The learned agglomeration: features of edges, the forest and its file, and the multicut."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import segment
import sharded
from retrace.errors import ConfigError, DataError
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.edge_labels import labelled_edges
from retrace.geometry import VoxelBox
from retrace.segmentation import jobs
from retrace.segmentation.edge_classifier import (
    ARRAYS,
    EdgeClassifier,
    Forest,
    digest_of,
    read_classifier,
    save_classifier,
)
from retrace.segmentation.edge_features import (
    CONTACT_NAMES,
    QUANTILES,
    EdgeTable,
    contact_features,
    edge_table,
    fragment_features,
    fragment_names,
)
from retrace.segmentation.fragments import compact_ids
from retrace.segmentation.grid import FragmentIds
from retrace.segmentation.image_channels import image_channels
from retrace.segmentation.multicut import attraction, joined_edges
from retrace.segmentation.region_graph import (
    MulticutGraph,
    StoredFeatures,
    open_region_graph,
    read_features,
)
from retrace.storage.manifest import write_manifest
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume
from unit.test_segment import OFFSET_NM, VOXEL_SIZE_NM, fragments_arguments, make_prediction


def _noise(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affinities, descriptors and 27 fragments, uint8."""
    rng = np.random.default_rng(seed)
    fragments = np.arange(1, 28).reshape(3, 3, 3)
    for axis, count in enumerate((4, 5, 6)):
        fragments = fragments.repeat(count, axis)
    affinities = rng.integers(0, 256, (3, *fragments.shape), dtype=np.uint8)
    return affinities, rng.integers(0, 256, (10, *fragments.shape), dtype=np.uint8), fragments


def _image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(9).random((3, *shape), np.float32)


def test_features_of_contacts_are_those_of_numpy() -> None:
    affinities, _, fragments = _noise()
    image = _image(fragments.shape)
    edges, features = contact_features(affinities, image, fragments)
    assert len(edges) == 54
    along_x = edges.tolist().index([1, 2])
    faces = affinities[2, :4, :5, 6].ravel() / np.float32(255)
    expected = [*np.percentile(faces, QUANTILES), faces.mean(), faces.std(), faces.max()]
    between = image[:, :4, :5, 5:7].mean(axis=-1)
    expected += [f(channel) for channel in between for f in (np.mean, np.std)]
    np.testing.assert_allclose(features[along_x], [*expected, 20], rtol=1e-5)


def test_features_of_fragments_are_their_means_and_deviations() -> None:
    affinities, descriptors, fragments = _noise()
    image = _image(fragments.shape)
    features = fragment_features(affinities, image, descriptors, fragments)
    assert features.shape == (27, len(fragment_names(10)))
    inside = fragments == 5
    channels = [affinities.mean(0) / 255, *image]
    expected = [f(channel[inside]) for channel in channels for f in (np.mean, np.std)]
    expected += [*descriptors[:, inside].mean(1) / 255]
    np.testing.assert_allclose(features[4], [120, *expected], rtol=1e-5)
    without = fragment_features(affinities, image, None, fragments)
    np.testing.assert_array_equal(without, features[:, : len(fragment_names(0))])


def _raw(folder: Path, values: np.ndarray, lead: int = 3) -> Path:
    """A store with the image `values`, which begins `lead` voxels before a prediction."""
    store, first = folder / "raw.zarr", np.subtract(OFFSET_NM, np.multiply(VOXEL_SIZE_NM, lead))
    place = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": tuple(first.tolist())}
    array = create_volume(
        store, "raw", shape=values.shape, chunks=(8, 32, 32), dtype=values.dtype, **place
    )
    array[...] = values
    write_manifest(store, inputs=[], settings={}, seconds=0)
    return store


@pytest.mark.parametrize("in_xy", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_of_the_image_are_those_of_scipy_in_any_box(
    tmp_path: Path, dtype: type, *, in_xy: bool
) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (20, 30, 34)).astype(np.uint8)
    unit = values.astype(np.float32) / np.float32(255)
    raw = open_volume(_raw(tmp_path, values if dtype is np.uint8 else unit), "raw")
    whole = image_channels(raw, raw.box, in_xy=in_xy)
    smoothed = ndimage.gaussian_filter(unit, (0, 1, 1) if in_xy else 1, mode="nearest")
    gradient = np.gradient(smoothed, axis=(1, 2) if in_xy else (0, 1, 2))
    np.testing.assert_array_equal(whole[0], unit)
    np.testing.assert_allclose(whole[1], smoothed, rtol=1e-6)
    np.testing.assert_allclose(whole[2], np.linalg.norm(gradient, axis=0), rtol=1e-4)
    for begin, shape in (
        ((0, 0, 0), (4, 30, 9)),
        ((7, 2, 11), (1, 5, 20)),
        ((15, 25, 28), (5, 5, 6)),
    ):
        box = VoxelBox(tuple(np.add(raw.box.offset, begin).tolist()), shape)
        part = whole[(slice(None), *box.slices(raw.box.offset))]
        np.testing.assert_array_equal(image_channels(raw, box, in_xy=in_xy), part)


def test_an_image_of_one_section_has_a_gradient_within_it(tmp_path: Path) -> None:
    values = np.tile(np.arange(0, 120, 4, np.uint8), (1, 30, 1))
    raw = open_volume(_raw(tmp_path, values), "raw")
    gradient = image_channels(raw, raw.box, in_xy=False)[2]
    np.testing.assert_allclose(gradient[0, :, 8:-8], 4 / 255, rtol=1e-5)


def test_all_features_do_not_depend_on_the_order_of_the_two_fragments() -> None:
    affinities, descriptors, fragments = _noise()
    image, names = _image(fragments.shape), fragment_names(10)
    edges, contacts = contact_features(affinities, image, fragments)
    of_fragments = fragment_features(affinities, image, descriptors, fragments)
    table = edge_table(contacts, of_fragments, names, edges - 1)
    turned = edge_table(contacts, of_fragments, names, edges[:, ::-1] - 1)
    assert table.values.shape == (54, len(table.names)) == (54, 57)
    np.testing.assert_array_equal(table.values, turned.values)
    assert np.isfinite(table.values).all()
    assert (table.faces == contacts[:, CONTACT_NAMES.index("faces")]).all()
    few = len(fragment_names(0))
    without = edge_table(contacts, of_fragments[:, :few], names[:few], edges - 1)
    assert set(without.names) < set(table.names)


def _bottleneck() -> tuple[np.ndarray, np.ndarray]:
    """Two objects of 4 fragments, each a ring with a diagonal, and one edge between the objects."""
    ring = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [0, 2]])
    return _sorted(np.concatenate([ring, ring + 4, [[3, 4]]]), np.array([0.2] * 10 + [0.45]))


def _sorted(edges: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    return (edges[order], *(value[order] for value in values))


def test_a_bottleneck_that_attracts_a_little_joins_at_high_thresholds_alone() -> None:
    edges, scores = _bottleneck()
    graph = MulticutGraph(edges.astype(np.uint64) + 1, scores, np.ones(11))
    ids = np.arange(9, dtype=np.uint64)
    assert graph.segments(ids, 0.4).tolist() == [0, 1, 1, 1, 1, 5, 5, 5, 5]
    assert graph.segments(ids, 0.5).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert graph.segments(ids, 0.0).tolist() == ids.tolist()


def test_edges_that_repel_outvote_one_that_attracts() -> None:
    """Connected components would join all six fragments, for one edge attracts."""
    first, second = [[0, 1], [0, 2], [1, 2]], [[3, 4], [3, 5], [4, 5]]
    edges = np.array([*first, *second, [0, 3], [1, 4], [2, 5]])
    scores, large = np.array([0.1] * 6 + [0.3, 0.8, 0.8]), np.array([1.0] * 6 + [64, 1, 1])
    edges, scores, large, between = _sorted(edges, scores, large, np.arange(9) > 5)
    joined = joined_edges(6, edges, attraction(scores, np.ones(9), 0.5))
    np.testing.assert_array_equal(joined, ~between)
    # The contact that attracts is large now: it outvotes the others.
    assert joined_edges(6, edges, attraction(scores, large, 0.5)).all()


def test_an_edge_at_the_threshold_has_no_weight() -> None:
    weights = attraction(np.array([0.3, 0.2, 0.4, 0.2]), np.array([9.0, 1, 1, 4]), 0.3)
    assert weights[0] == 0 < weights[1] == weights[3] / 2
    assert weights[2] < 0


def test_a_multicut_is_the_same_each_time_and_its_edges_are_the_components() -> None:
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(rng.integers(0, 300, (2000, 2)), axis=1), axis=0)
    edges = edges[edges[:, 0] < edges[:, 1]]
    weights = rng.normal(size=len(edges))
    first = joined_edges(300, edges, weights)
    np.testing.assert_array_equal(first, joined_edges(300, edges, weights))
    assert 0 < first.sum() < len(edges)
    graph = MulticutGraph(edges.astype(np.uint64), rng.random(len(edges)), np.ones(len(edges)))
    ids = np.arange(300, dtype=np.uint64)
    segments = graph.segments(ids, 0.5)
    inside = segments[edges[:, 0]] == segments[edges[:, 1]]
    np.testing.assert_array_equal(inside, graph.joined(0.5))


def _labelled(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(400, 5)).astype(np.float32)
    return features, features[:, 0] + features[:, 1] + rng.normal(size=400) / 2 > 0


def test_the_arrays_give_scikit_learns_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    from retrace.segmentation import edge_training

    monkeypatch.setattr(edge_training, "TREES", 30)
    features, different = _labelled()
    forest, out_of_bag = edge_training.train_forest(features, different)
    theirs = ensemble.RandomForestClassifier(
        30, min_samples_leaf=3, max_samples=400, oob_score=True, random_state=edge_training.SEED
    ).fit(features, different)
    more = np.random.default_rng(1).normal(size=(1000, 5)).astype(np.float32)
    np.testing.assert_allclose(forest.scores(more), theirs.predict_proba(more)[:, 1], atol=1e-12)
    np.testing.assert_array_equal(out_of_bag, theirs.oob_decision_function_[:, 1])
    right = (out_of_bag > 0.5) == different
    assert 0.8 < right.mean() < ((forest.scores(features) > 0.5) == different).mean()


def test_no_edge_at_all_is_refused() -> None:
    from retrace.segmentation.edge_training import train_forest

    with pytest.raises(DataError, match="no edge of the validation entries lies between two"):
        train_forest(np.empty((0, 5), np.float32), np.empty(0, bool))


@pytest.mark.parametrize("kind", [True, False])
def test_edges_of_one_kind_are_refused(kind: bool) -> None:
    from retrace.segmentation.edge_training import train_forest

    with pytest.raises(DataError, match=r"all 400 labelled edges .* needs edges of both kinds"):
        train_forest(_labelled()[0], np.full(400, kind))


def _forest(**changed: np.ndarray) -> Forest:
    """A tree with two leaves, and a tree that is a leaf."""
    arrays = {
        "starts": np.array([0, 3, 4]),
        "feature": np.array([1, 0, 0, 0]),
        "threshold": np.array([0.5, -2.0, -2.0, -2.0]),
        "left": np.array([1, -1, -1, -1]),
        "right": np.array([2, -1, -1, -1]),
        "score": np.array([0.5, 0.0, 1.0, 0.4]),
    }
    assert set(arrays) == set(ARRAYS)
    return Forest(**{**arrays, **changed})


EDGES = np.array([[1, 2], [1, 3], [2, 3]], np.uint64)


def _classifier(forest: Forest) -> EdgeClassifier:
    trained = {digest_of(EDGES, _table("size", "mean")): (np.array([2]), np.array([0.25]))}
    return EdgeClassifier(forest, ("size", "mean"), trained)


def _table(*names: str) -> EdgeTable:
    return EdgeTable(names, np.array([[0, 0.5], [0, 0.6], [0, 0.6]], np.float32), np.ones(3))


def test_a_classifier_is_read_as_it_was_written(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_classifier(tmp_path / name, _classifier(_forest()))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    classifier = read_classifier(tmp_path / "first")
    scores = classifier.scores(EDGES, _table("size", "mean"))
    np.testing.assert_allclose(scores, [0.2, 0.7, 0.25])  # the last one is out of bag
    others = classifier.scores(EDGES[:, ::-1], _table("size", "mean"))
    np.testing.assert_allclose(others, [0.2, 0.7, 0.7])
    other = EdgeTable(("size", "mean"), _table().values + np.float32(0.001), np.ones(3))
    np.testing.assert_allclose(classifier.scores(EDGES, other), [0.7, 0.7, 0.7])
    with pytest.raises(DataError, match="other features than these fragments: lsds, size"):
        classifier.scores(EDGES, _table("lsds", "mean"))


HOSTILE = {
    "a cycle": {"left": np.array([0, -1, -1, -1])},
    "a child in another tree": {"right": np.array([3, -1, -1, -1])},
    "one child": {"right": np.array([-1, -1, -1, -1])},
    "a child out of range": {"right": np.array([9, -1, -1, -1])},
    "a feature out of range": {"feature": np.array([2, 0, 0, 0])},
    "a negative feature": {"feature": np.array([-1, 0, 0, 0])},
    "no number": {"threshold": np.array([np.nan, 0, 0, 0])},
    "no probability": {"score": np.array([0.5, 0, 1.5, 0.4])},
    "NaN as probability": {"score": np.array([0.5, 0, np.nan, 0.4])},
    "another size": {"score": np.array([0.5, 0, 1])},
    "another type": {"left": np.array([1.0, -1, -1, -1])},
    "an empty tree": {"starts": np.array([0, 0, 4])},
    "nodes of no tree": {"starts": np.array([0, 3])},
    "no tree": {"starts": np.array([0])},
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_an_impossible_forest_is_refused(fault: str, tmp_path: Path) -> None:
    save_classifier(tmp_path / "c.safetensors", _classifier(_forest(**HOSTILE[fault])))
    with pytest.raises(DataError, match=r"c\.safetensors is no classifier of edges: .*; delete it"):
        read_classifier(tmp_path / "c.safetensors")


def test_out_of_bag_scores_of_other_edges_are_refused(tmp_path: Path) -> None:
    trained = {digest_of(EDGES, _table("size", "mean")): (np.array([3]), np.array([0.25]))}
    classifier = EdgeClassifier(_forest(), ("size", "mean"), trained)
    with pytest.raises(DataError, match="out-of-bag"):
        classifier.scores(EDGES, _table("size", "mean"))
    negative = {"x": (np.array([-1]), np.array([0.25]))}
    save_classifier(tmp_path / "c", EdgeClassifier(_forest(), ("size", "mean"), negative))
    with pytest.raises(DataError, match="out-of-bag"):
        read_classifier(tmp_path / "c")


def _add_descriptors(folder: Path) -> np.ndarray:
    """Adds descriptors to the prediction in `folder`."""
    store = folder / "prediction.zarr"
    values = np.random.default_rng(3).integers(0, 256, (10, 16, 40, 44), dtype=np.uint8)
    place = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": OFFSET_NM}
    chunks = (10, 8, 32, 32)
    array = create_volume(store, "lsds", shape=values.shape, chunks=chunks, dtype=np.uint8, **place)
    array[...] = values
    write_manifest(store, inputs=[], settings={}, seconds=0)
    return values


def _multicut(folder: Path, **more: Any) -> dict[str, Any]:
    """Settings for a prediction in `folder`, whose image is written."""
    values = np.random.default_rng(5).integers(0, 256, (22, 46, 50), dtype=np.uint8)
    return {
        "method": "multicut",
        "raw": {"path": str(_raw(folder, values)), "array": "raw"},
        **more,
    }


def test_features_do_not_depend_on_blocks_and_shards(tmp_path: Path) -> None:
    settings = _multicut(tmp_path, **sharded.SETTINGS)
    whole = tmp_path / "whole"
    whole.mkdir()
    for folder in (tmp_path, whole):
        prediction = make_prediction(folder)
        descriptors = _add_descriptors(folder)
    segment.main(fragments_arguments(whole, **settings))
    stored = sharded.arrays(whole / "fragments.zarr")
    assert "scores" not in stored
    sharded.make_fragments(tmp_path, 3, settings)
    in_shards = sharded.arrays(sharded.make_graph(tmp_path, 3, settings))
    assert set(in_shards) == set(stored)
    for name, values in stored.items():
        np.testing.assert_array_equal(in_shards[name], values, err_msg=name)
    # The same features of the same fragments, of the volume without blocks.
    ids, compact = compact_ids(stored["fragments"])
    affs = open_volume(prediction, "affs")
    affinities = np.asarray(affs.array[...])
    image = image_channels(open_volume(tmp_path / "raw.zarr", "raw"), affs.box, in_xy=True)
    edges, features = contact_features(affinities, image, compact)
    np.testing.assert_array_equal(stored["edges"], ids[edges])
    np.testing.assert_array_equal(stored["edge_features"], features)
    of_fragments = fragment_features(affinities, image, descriptors, compact)
    np.testing.assert_array_equal(stored["fragment_features"], of_fragments)
    read = read_features(whole / "fragments.zarr")
    assert len(read.table.names) == 57 and len(read.voxels) == len(ids) - 1


def test_features_need_an_image_with_the_voxels_of_the_prediction(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    with pytest.raises(ConfigError, match=r"describes edges by the image: set `raw`"):
        segment.main(fragments_arguments(tmp_path, method="multicut"))
    settings = _multicut(tmp_path)
    shutil.rmtree(tmp_path / "raw.zarr")
    _raw(tmp_path, np.zeros((16, 40, 44), np.uint8))
    with pytest.raises(DataError, match=r"raw\.zarr.* ends inside of .*prediction\.zarr"):
        segment.main(fragments_arguments(tmp_path, **settings))
    settings["raw"] |= {"voxel_size_nm": [9, 9, 9]}
    with pytest.raises(DataError, match="voxel"):
        segment.main(fragments_arguments(tmp_path, **settings))


def test_fragments_in_shards_do_not_read_the_image_and_edges_do(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    settings = _multicut(tmp_path, **sharded.SETTINGS)
    shutil.move(tmp_path / "raw.zarr", tmp_path / "away.zarr")
    sharded.make_fragments(tmp_path, 2, settings)
    with pytest.raises(DataError, match=r"raw\.zarr"):
        sharded.make_graph(tmp_path, 2, settings)


def test_edges_of_a_changed_image_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is a folder of tifs, which are overwritten while the job is interrupted."""
    make_prediction(tmp_path)
    folder = tmp_path / "tifs"
    folder.mkdir()

    def write(seed: int) -> None:
        for z, section in enumerate(np.random.default_rng(seed).integers(0, 256, (16, 40, 44))):
            tifffile.imwrite(folder / f"{z:03}.tif", section.astype(np.uint8))

    place = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": OFFSET_NM}
    raw = {"path": str(folder), **place}
    settings = {**sharded.SETTINGS, "method": "multicut", "raw": raw}
    arguments = fragments_arguments(tmp_path, **settings)
    write(0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(jobs, "write_graph", interrupt)
        segment.main(arguments)
    write(1)
    segment.main(arguments)
    resumed = sharded.arrays(tmp_path / "fragments.zarr")["edge_features"]
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    segment.main(arguments)
    np.testing.assert_array_equal(
        resumed, sharded.arrays(tmp_path / "fragments.zarr")["edge_features"]
    )


def interrupt(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_store_with_features_needs_its_classifier(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    segment.main(fragments_arguments(tmp_path, **_multicut(tmp_path, fragments_in_xy=True)))
    with pytest.raises(ConfigError, match="which need a classifier; give --classifier FILE"):
        open_region_graph(tmp_path / "fragments.zarr")
    save_classifier(tmp_path / "c.safetensors", _classifier(_forest()))
    with pytest.raises(DataError, match="other features than these fragments"):
        open_region_graph(tmp_path / "fragments.zarr", tmp_path / "c.safetensors")


def test_only_fragments_that_are_mostly_labelled_are_learned_from() -> None:
    """Fragment 4 has few labelled voxels, and 5 none; edges lie along the row 1 ... 5."""
    edges = np.array([[1, 2], [2, 3], [3, 4], [4, 5]], np.uint64)
    ids = FragmentIds(1000, np.array([5]))
    stored = StoredFeatures(edges, EdgeTable((), np.empty((4, 0)), np.ones(4)), ids, np.full(5, 10))
    segments, objects, counts = np.array([[1, 7, 9], [1, 8, 1], [2, 7, 5], [3, 8, 10], [4, 8, 4]]).T
    table = Contingency(segments.astype(np.uint64), objects.astype(np.uint64), counts)
    rows, different = labelled_edges(stored, table)
    assert rows.tolist() == [0, 1] and different.tolist() == [False, True]


def test_the_programs_join_and_apply_cut_with_the_classifier(tmp_path: Path) -> None:
    make_prediction(tmp_path)
    segment.main(fragments_arguments(tmp_path, **_multicut(tmp_path, **sharded.SETTINGS)))
    store, file = tmp_path / "fragments.zarr", tmp_path / "c.safetensors"
    names = read_features(store).table.names
    save_classifier(file, EdgeClassifier(_forest(), names, {}))
    (tmp_path / "threshold.json").write_text('{"threshold": 0.5}')
    places = {"fragments": store, "threshold-file": tmp_path / "threshold.json"}
    options = sharded.options(**places, classifier=file)
    fragments = sharded.arrays(store)["fragments"]
    expected = open_region_graph(store, file).segments(fragments, 0.5)
    lut = tmp_path / "lut.zarr"
    segment.main(["join", *options, "--output", str(lut)])
    segment.main(["apply", *options, "--output", str(tmp_path / "first.zarr")])
    # With the table, the graph is not read: neither its features nor a classifier are needed.
    shutil.rmtree(store / "edge_features")
    write_manifest(store, inputs=[], settings={}, seconds=0)
    more = sharded.options(**places, lut=lut, output=tmp_path / "second.zarr")
    segment.main(["apply", *more])
    for name in ("first", "second"):
        segments = sharded.arrays(tmp_path / f"{name}.zarr")["segments"]
        np.testing.assert_array_equal(segments, expected)
    assert 1 < len(np.unique(expected)) < len(np.unique(fragments))
