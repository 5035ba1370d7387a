"""gen_stack, combine_h5 and synthetic sections, run as programs on tiny layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

import stacks
from retrace.alignment import stack_writer
from retrace.alignment.stack_files import StackDataset
from retrace.alignment.stack_sampling import AtLeast, StackSampler, StackSources
from retrace.augment.artificial_defects import pull
from retrace.config import alignment as sections
from retrace.config import compatibility, datasets, networks
from retrace.config.alignment_model import Reject, StackSet, SyntheticSections
from retrace.errors import ConfigError, DataError
from retrace.planning.stack_settings import DistortSettings
from retrace.storage.precomputed_writer import write_layer
from retrace.storage.volumes import Volume, open_volume
from retrace.synthetic.distorted_sections import Distortion

SIZE = (40, 8, 8)


def image(shape: tuple[int, int, int] = (12, 96, 96)) -> np.ndarray:
    return np.random.default_rng(0).integers(40, 255, shape, np.uint8)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    write_layer(tmp_path / "layer", image(), SIZE, (5, 16, 32))
    return tmp_path / "layer"


def sample_settings(layer: Path, split: str = "train", **changes: Any) -> dict[str, Any]:
    """Settings of gen_stack; `changes` apply to the stacks, or to other settings by name."""
    reject = Reject().complete().plain() | changes.pop("reject", {})
    own = {key: changes.pop(key) for key in ("name", "seed", "mask") if key in changes}
    stack = (
        StackSet().complete(deep=True).plain()
        | {"count": 4, "test_count": 2, "height": 3, "side": 32}
        | changes
    )
    source = {"path": f"file://{layer}", "array": "", "mip": stack["mip"] or 0}
    return {
        "name": "mine",
        "split": split,
        "seed": 7,
        "source": source,
        "mask": None,
        "near_px": 2,
        "stacks": stack | {"reject": reject},
        **own,
    }


def generate(output: Path, settings: dict[str, Any], *options: str) -> Path:
    stacks.main(
        ["gen_stack", "--settings", json.dumps(settings), "--output", str(output), *options]
    )
    return output


def corners(output: Path) -> list[list[int]]:
    path = output.with_name(f"{output.stem}.coordinates.json")
    corners_nm: list[list[int]] = json.loads(path.read_text())["corners_nm"]
    return corners_nm


def test_stacks_contain_the_sections_at_their_coordinates(layer: Path, tmp_path: Path) -> None:
    output = generate(tmp_path / "a.h5", sample_settings(layer))
    data = StackDataset([output])
    whole = image()

    assert len(data) == 4
    for number, corner in enumerate(corners(output)):
        z, y, x = (c // v - o for c, v, o in zip(corner, SIZE, (5, 16, 32), strict=True))
        here = whole[z : z + 3, y : y + 32, x : x + 32]
        assert np.array_equal(np.round(data[number].images.numpy() * 255), here)
    with h5py.File(output) as file:
        assert file["mine/images"].dtype == np.uint8
        assert file["mine/images"].chunks == (1, 1, 32, 32)
        assert file["mine"].attrs["resolution"].tolist() == list(SIZE)
    manifest = json.loads((tmp_path / "a.manifest.json").read_text())
    assert manifest["stacks"] == 4
    assert not list(tmp_path.glob(".*"))


def test_seed_and_coordinates_give_the_same_bytes(layer: Path, tmp_path: Path) -> None:
    first = generate(tmp_path / "a.h5", sample_settings(layer))
    again = generate(tmp_path / "b.h5", sample_settings(layer))
    other = generate(tmp_path / "c.h5", sample_settings(layer, seed=8))
    replayed = sample_settings(layer, seed=9, coordinates=str(tmp_path / "a.coordinates.json"))
    same = generate(tmp_path / "d.h5", replayed)

    assert first.read_bytes() == again.read_bytes() == same.read_bytes()
    assert corners(first) == corners(same) != corners(other)


def test_seamless_lists_of_coordinates_are_read(layer: Path, tmp_path: Path) -> None:
    """x, y, z, extent and H in voxels of mip 0."""
    places = tmp_path / "coords.txt"
    places.write_text("[(40, 20, 6, 32, 3), (33, 17, 7, 32, 3)]")
    output = generate(tmp_path / "a.h5", sample_settings(layer, coordinates=str(places)))

    assert corners(output) == [[240, 160, 320], [280, 136, 264]]
    places.write_text("[(40, 20, 6, 64, 3)]")
    with pytest.raises(ConfigError, match="so that they agree"):
        generate(tmp_path / "b.h5", sample_settings(layer, coordinates=str(places)))
    places.write_text("no coordinates")
    with pytest.raises(ConfigError, match="cannot be read"):
        generate(tmp_path / "c.h5", sample_settings(layer, coordinates=str(places)))


def test_each_split_has_sections_of_its_own(layer: Path, tmp_path: Path) -> None:
    share = {"validation_fraction": 0.25, "test_fraction": 0.4, "count": 20, "test_count": 20}
    share |= {"validation_count": 9}
    used = {}
    for split, count in (("train", 20), ("validation", 9), ("test", 20)):
        output = generate(tmp_path / f"{split}.h5", sample_settings(layer, split, **share))
        sections = [z // 40 - 5 for z, _, _ in corners(output)]
        assert len(sections) == count
        used[split] = [min(sections), max(sections) + 3]
    assert used == {"train": [0, 5], "validation": [5, 8], "test": [8, 12]}
    places = tmp_path / "coords.txt"
    places.write_text("[(40, 20, 8, 32, 3)]")
    given = sample_settings(layer, **share, coordinates=str(places))
    with pytest.raises(ConfigError, match="ends before section 11, and sections from 10 on are"):
        generate(tmp_path / "c.h5", given)
    places.write_text("[]")
    assert len(corners(generate(tmp_path / "c.h5", given))) == 20, "drawn, as without a file"


def test_zarr_and_an_interrupted_run_give_the_same_stacks(
    layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(tmp_path / "a.h5", sample_settings(layer))
    read = StackSampler.read
    reads: list[Any] = []

    def killed(self: StackSampler, offset: Any) -> Any:
        reads.append(offset)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return read(self, offset)

    work = ("--work", str(tmp_path / "work"))
    monkeypatch.setattr(StackSampler, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "b.h5", sample_settings(layer), *work)
    assert not (tmp_path / "b.h5").exists()
    resumed = generate(tmp_path / "b.h5", sample_settings(layer), *work)
    chunked = generate(tmp_path / "c.zarr", sample_settings(layer))

    assert len(reads) == 3 + 2 + 4
    assert whole.read_bytes() == resumed.read_bytes()
    assert torch.equal(StackDataset([whole])[3].images, StackDataset([chunked])[3].images)


def test_places_without_content_are_drawn_again(tmp_path: Path) -> None:
    whole = image((8, 96, 96))
    whole[:, :, :48] = 0
    whole[:, 48:, 48:] = 100
    write_layer(tmp_path / "layer", whole, SIZE, (0, 0, 0))
    loose = {"least_filled": 0, "least_std": 0, "least_mean": 0}
    strict = generate(tmp_path / "a.h5", sample_settings(tmp_path / "layer"))
    black = generate(tmp_path / "b.h5", sample_settings(tmp_path / "layer", reject=loose, count=30))
    left = [(y // 8, x // 8) for _, y, x in corners(strict)]

    assert all(x >= 48 - 32 * 0.2 and not (x >= 48 and y >= 48) for y, x in left)
    assert min(x // 8 for _, _, x in corners(black)) < 40
    with pytest.raises(ConfigError, match="200 flatter than least_std"):
        roi = {"offset": [0, 400, 400], "shape": [320, 368, 368]}
        generate(tmp_path / "c.h5", sample_settings(tmp_path / "layer", roi_nm=roi))
    with pytest.raises(ConfigError, match="200 black"):
        roi = {"offset": [0, 0, 0], "shape": [320, 768, 384]}
        generate(tmp_path / "d.h5", sample_settings(tmp_path / "layer", roi_nm=roi))


def test_missing_chunks_are_black(layer: Path, tmp_path: Path) -> None:
    for chunk in (layer / "8_8_40").iterdir():
        if chunk.name.startswith("32-96"):
            chunk.unlink()
    output = generate(tmp_path / "a.h5", sample_settings(layer))

    assert min(x // 8 for _, _, x in corners(output)) > 96 - 32 * 0.2 - 1


def test_a_mask_layer_of_larger_voxels_becomes_masks(layer: Path, tmp_path: Path) -> None:
    bad = np.zeros((12, 48, 48), np.uint8)
    bad[:, :, :24] = 150
    write_layer(tmp_path / "bad", bad, (40, 16, 16), (5, 8, 16))
    mask = {"path": f"file://{tmp_path}/bad", "mip": 0, "defect_from": 100}
    settings = sample_settings(layer, mask=mask, reject={"least_clean": 0.5}, count=12)
    output = generate(tmp_path / "a.h5", settings)
    data = StackDataset([output])

    for number, (_, _, x) in enumerate(corners(output)):
        columns = np.arange(x // 8, x // 8 + 32) - 32
        expected = np.where(columns < 48, 2, np.where(columns < 50, 1, 0))
        # The label 1 needs a 2 inside the stack.
        within_stack = expected if (expected == 2).any() else np.zeros(32)
        assert (data[number].masks.numpy() == within_stack).all()
        assert (expected < 2).mean() >= 0.5
    assert any(bool(data[i].masks.any()) for i in range(12))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mip": 1}, "no mip 1"),
        ({"roi_nm": {"offset": [0, 0, 0], "shape": [400, 800, 800]}}, "leaves the volume"),
        ({"side": 128}, "do not fit"),
        ({"height": 11}, "do not fit"),
    ],
)
def test_unsamplable_settings_are_refused(
    layer: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=word):
        generate(tmp_path / "a.h5", sample_settings(layer, **changes))


def test_combined_files_hold_every_set_under_its_name(layer: Path, tmp_path: Path) -> None:
    one = generate(tmp_path / "a.h5", sample_settings(layer))
    two = generate(tmp_path / "b.h5", sample_settings(layer, name="other", count=2))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["main"] = np.full((1, 3, 32, 32), 9, np.uint8)
    output = tmp_path / "all.h5"
    stacks.main(["combine_h5", str(output), str(one), str(two), str(tmp_path / "old.h5")])
    data = StackDataset([output])

    assert [(s.name, s.shape[0]) for s in data.sets] == [("main", 1), ("mine", 4), ("other", 2)]
    assert torch.equal(data[2].images, StackDataset([one])[1].images)
    with h5py.File(output) as file:
        assert file["mine"].attrs["resolution"].tolist() == list(SIZE)
    with pytest.raises(ConfigError, match="would both be called 'a_mine'"):
        stack_writer.combine_stack_files(tmp_path / "c.h5", [one, one])
    with pytest.raises(ConfigError, match="one of the sources"):
        stack_writer.combine_stack_files(one, [one, two])


def synthetic_settings(**changes: Any) -> dict[str, Any]:
    distortions = (
        SyntheticSections().complete().plain()
        | {"jitter_px": 2, "warp_px": 1.5, "contrast": 0}
        | changes
    )
    return {"made": distortions, "seed": 3, "voxel_size_nm": list(SIZE)}


def test_synthetic_sections_match_their_ground_truth_positions(tmp_path: Path) -> None:
    """A ramp as raw: the value of each pixel is the row that it came from."""
    raw = np.broadcast_to(np.arange(100, 196, dtype=np.uint8)[:, None], (3, 96, 96))
    volume = Volume(np.ascontiguousarray(raw), SIZE, (0, 80, 160), "ramp")
    settings = DistortSettings.model_validate(synthetic_settings())
    stacks.distort_sections_of(volume, settings, tmp_path / "layer", tmp_path / "truth.zarr")
    shown = open_volume(f"file://{tmp_path}/layer")
    known = open_volume(tmp_path / "truth.zarr", "displacement")
    far = Distortion(jitter_px=2, warp_px=1.5).reach_px
    row = np.arange(96 - 2 * far)[:, None] + far + 100
    came_from = row + known.read(known.box)[0]

    assert shown.offset_nm == known.offset_nm == (0, 80 + far * 8, 160 + far * 8)
    assert np.abs(shown.read(shown.box) - came_from)[:, 2:-2].max() <= 1
    assert not open_volume(tmp_path / "truth.zarr", "defects").array[...].any()


def test_stacks_of_synthetic_sections_contain_their_ground_truth(tmp_path: Path) -> None:
    settings = {**synthetic_settings(phantom_shape=[4, 300, 300], crack=1.0), "raw": None}
    layer, truth = tmp_path / "layer", tmp_path / "truth.zarr"
    arguments = ["make", "--settings", json.dumps(settings), "--layer", str(layer)]
    stacks.main([*arguments, "--truth", str(truth)])
    options = ("--truth", str(truth))
    common = {"test_fraction": 0, "reject": {"least_filled": 0, "least_std": 0}, "count": 2}
    fine = generate(tmp_path / "a.h5", sample_settings(layer, **common), *options)
    coarse = generate(tmp_path / "b.h5", sample_settings(layer, mip=1, **common), *options)
    known = open_volume(truth, "displacement").array[...]
    defects = open_volume(truth, "defects").array[...]
    z, y, x = (c // v for c, v in zip(corners(fine)[0], SIZE, strict=True))
    stack = StackDataset([fine])[0]
    here = (slice(z, z + 3), slice(y, y + 32), slice(x, x + 32))

    assert stack.fields is not None
    assert np.array_equal(stack.fields.numpy(), known[(slice(None), *here)].swapaxes(0, 1))
    assert np.array_equal(stack.masks.numpy(), defects[here])
    z, y, x = (c // v for c, v in zip(corners(coarse)[0], SIZE, strict=True))
    half = known[:, z : z + 3, y : y + 64, x : x + 64]
    expected = half.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)) / 2
    fields = StackDataset([coarse])[0].fields
    assert fields is not None
    assert np.allclose(fields.numpy(), expected.swapaxes(0, 1), atol=1e-5)
    assert json.loads((tmp_path / "truth.manifest.json").read_text())["arrays"]["displacement"]


def test_float_raw_is_scaled_and_other_types_are_refused() -> None:
    stack = StackSet(height=2, side=16, test_fraction=0.0)
    soft = Volume(np.full((2, 16, 16), 0.5, np.float32), SIZE, (0, 0, 0), "soft")
    wide = Volume(np.full((2, 16, 16), 500, np.uint16), SIZE, (0, 0, 0), "wide")
    bright = Volume(np.full((2, 16, 16), 5, np.float32), SIZE, (0, 0, 0), "bright")

    assert (StackSampler(StackSources(soft), stack, "train", 0).read((0, 0, 0)).images == 128).all()
    with pytest.raises(DataError, match="raw must be uint8"):
        StackSampler(StackSources(wide), stack, "train", 0)
    with pytest.raises(DataError, match=r"5 to 5; raw must be uint8, or float in \[0, 1\]"):
        StackSampler(StackSources(bright), stack, "train", 0).read((0, 0, 0))


def test_values_from_a_limit_on_are_bad() -> None:
    bad = AtLeast(np.array([0, 99, 100, 255], np.uint8), 100)

    assert bad[:].tolist() == [0, 0, 1, 1]


def test_known_displacements_undo_the_distortion(tmp_path: Path) -> None:
    """Warping the undistorted raw with the ground truth gives the layer."""
    raw = image((2, 80, 80))
    volume = Volume(raw, SIZE, (0, 0, 0), "raw")
    settings = DistortSettings.model_validate(synthetic_settings())
    stacks.distort_sections_of(volume, settings, tmp_path / "layer", tmp_path / "truth.zarr")
    far = Distortion(jitter_px=2, warp_px=1.5).reach_px
    known = open_volume(tmp_path / "truth.zarr", "displacement").array[...]
    shown = open_volume(f"file://{tmp_path}/layer")
    again = pull(torch.from_numpy(raw[1]).float(), torch.from_numpy(known[:, 1]), (far, far))

    assert np.abs(again.numpy() - shown.read(shown.box)[1]).max() <= 1


# ---------------------------------------------------------------- datasets


def dataset_file(folder: Path, **alignment: Any) -> Path:
    content = {
        "name": "mine",
        "voxel_size_nm": list(SIZE),
        "volumes": {"sections": {"raw": {"path": f"file://{folder}/layer"}}},
        "alignment": {"volume": "sections", **alignment},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_datasets_to_align_are_complete(layer: Path, tmp_path: Path) -> None:
    data = datasets.load_dataset(dataset_file(tmp_path, stacks={"a": {"mip": 0, "side": 64}}))

    assert data.alignment.stacks["a"].height == 10
    assert sections.stack_stores(data, "train") == ["results/mine/stacks/a_train.h5"]
    assert sections.stack_stores(data, "test") == []
    assert sections.source(data, 0).voxel_size_nm is None
    sections.check_sections(data)


@pytest.mark.parametrize(
    ("alignment", "word"),
    [
        ({"volume": "section"}, "did you mean 'sections'"),
        (
            {"stacks": {"a": {"height": 1}}},
            "height: 1 is not allowed; give a whole number of at least 2",
        ),
        ({"stacks": {"a": {"test_fraction": 0, "test_count": 3}}}, "3 test stacks"),
        (
            {"stacks": {"a": {"validation_count": 1, "validation_fraction": 0}}},
            "1 validation stacks",
        ),
        (
            {"stacks": {"a": {"validation_count": 1, "test_fraction": 0.9}}},
            "leave no sections to train on",
        ),
        ({"stacks": {"a": {"sides": 3}}}, "did you mean 'side'"),
        ({"stacks": {"a": {"mip": 4}}}, "no mip 4"),
        ({"stacks": {"a": {"coordinates": "none.json"}}}, "do not exist"),
        (
            {"stacks": {"a": {"roi_nm": {"offset": [0, 0, 0], "shape": [40, 80, 8]}}}},
            "leaves the volume",
        ),
    ],
)
def test_datasets_that_cannot_be_aligned_are_refused(
    layer: Path, tmp_path: Path, alignment: dict[str, Any], word: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=word):
        sections.check_sections(datasets.load_dataset(dataset_file(tmp_path, **alignment)))


def test_sides_that_a_pyramid_cannot_halve_are_refused(layer: Path, tmp_path: Path) -> None:
    network = networks.network_by_name("seamless").with_(height=5)
    for side, word in ((64, None), (16, "smaller than a pyramid"), (72, "such as 64")):
        data = datasets.load_dataset(dataset_file(tmp_path, stacks={"a": {"side": side}}))
        if word is None:
            compatibility.check_pair(data, network, "train")
            continue
        with pytest.raises(ConfigError, match=word):
            compatibility.check_pair(data, network, "train")


def test_other_pairs_with_sections_are_refused(layer: Path, tmp_path: Path) -> None:
    data = datasets.load_dataset(dataset_file(tmp_path))
    with pytest.raises(ConfigError, match="holds sections to align and no labels"):
        compatibility.check_pair(data, networks.network_for("mtlsd", data), "train")
    with pytest.raises(ConfigError, match="has no `alignment`"):
        network = networks.network_by_name("seamless")
        compatibility.check_pair(datasets.load_dataset("zfinch"), network, "train")


def test_basil_waits_for_the_users_path() -> None:
    with pytest.raises(ConfigError, match="the path of volume 'sections' is not filled in yet"):
        datasets.load_dataset("basil")
    for name in ("phantom_sections", "vnc_nc"):
        assert sections.sections_of(datasets.load_dataset(name)).made
