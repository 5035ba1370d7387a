"""describe.py: what is known about arrays, and who states it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tifffile
import yaml
import zarr

import describe
from retrace.errors import DataError
from stated_files import CFG, RAW, ome_zarr, space, zarr_with


def lines(text: str, name: str) -> dict[str, str]:
    """The lines about one array, by property."""
    block = text.split(f"{name}\n", 1)[1].split("\n")
    own = list(block[: next((i for i, x in enumerate(block) if x[:1] not in " "), 99)])
    return {line[2:15].strip(): line[15:].strip() for line in own if line.strip()}


def test_each_property_is_shown_with_who_states_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attributes = {"resolution": [45, 4.6, 4.6], "axis_names": ["z", "y", "x"]}
    store = zarr_with(tmp_path / "a.zarr", attributes)
    describe.main([str(store)])

    known = lines(capsys.readouterr().out, str(store))
    assert known["shape"].split("  ")[0] == "[12, 32, 40]"
    assert known["voxel size"].endswith("file: `resolution` [45, 4.6, 4.6] nm")
    assert known["axes"].endswith("file: `axis_names` ['z', 'y', 'x']")
    assert known["position"].endswith("unknown: neither file nor config state it; 0 is taken")
    assert known["byte order"].startswith("none, one byte")
    assert known["channels"].startswith("none")
    assert known["completeness"].startswith("every chunk exists")


def test_what_the_config_states_is_shown_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = zarr_with(tmp_path / "a.zarr", {})
    volume = {"offset_nm": [80, 8, 8], "raw": {"path": str(store), "axes": "xyz"}}
    dataset = {"name": "mine", "voxel_size_nm": CFG, "volumes": {"v": volume}, "test": ["v"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(dataset))
    describe.main(["--dataset", str(tmp_path / "mine.yaml")])

    text = capsys.readouterr().out
    assert f"mine.yaml v raw: {store}\n" in text
    assert "[40, 4, 4] nm (z, y, x)          config: `voxel_size_nm`" in text
    assert "[80, 8, 8] nm (z, y, x)          config: `offset_nm`" in text
    assert "xyz, read as zyx                 config: `axes: xyz`" in text


def test_grey_values_are_shown_where_something_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "white.tif", RAW, photometric="miniswhite")
    raw = {"path": str(tmp_path / "white.tif")}
    normalize = {"range": [10, 200], "invert": True}
    volumes = {"a": {"raw": raw}, "b": {"raw": {**raw, "normalize": normalize}}}
    dataset = {"name": "mine", "voxel_size_nm": CFG, "volumes": volumes, "test": ["a", "b"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(dataset))
    describe.main(["--dataset", str(tmp_path / "mine.yaml")])

    text = capsys.readouterr().out
    names = [f"{tmp_path}/mine.yaml {name} raw: {raw['path']}" for name in "ab"]
    shown = [lines(text, name)["grey values"].split() for name in names]
    assert " ".join(shown[0]) == "0 is white file: MinIsWhite"
    line = "`normalize: {range: [10, 200], invert: true}`"
    assert " ".join(shown[1]) == f"read as uint8 config: {line}"


def test_an_unknown_voxel_size_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", RAW, photometric="minisblack", metadata=None)
    attributes = {"offset": [123456.25, 123456.25, 123456.25], "units": "nm"}
    placed = zarr_with(tmp_path / "placed.zarr", attributes)
    unitless = ome_zarr(tmp_path / "unitless.zarr", space(), [40, 4, 4], [80, 8, 8])
    paths = [str(tmp_path / "plain.tif"), str(placed), str(unitless)]
    describe.main(paths)

    text = capsys.readouterr().out
    plain, moved, silent = (lines(text, path) for path in paths)
    nobody = "unknown: neither file nor config state it; add `voxel_size_nm`"
    assert plain["voxel size"].endswith(nobody) and moved["voxel size"].endswith(nobody)
    assert plain["position"].startswith("[0, 0, 0]") and plain["position"].endswith("0 is taken")
    assert moved["position"].startswith("[123456.25, 123456.25, 123456.25] nm")
    assert "without a unit" in silent["voxel size"]
    assert silent["position"].startswith("unknown")
    block = text.split(f"{placed}\n")[1].split(f"{unitless}\n")[0]
    shown = [re.search(r" (file|unknown)(:|$)", line) for line in block.splitlines()]
    assert len({match.start() if match else None for match in shown}) == 1


def test_what_cannot_be_read_is_shown_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = zarr_with(tmp_path / "good.zarr", {"resolution": CFG})
    silent = zarr_with(tmp_path / "silent.zarr", {})
    lost = zarr_with(tmp_path / "lost.zarr", {"resolution": CFG})
    next(path for path in sorted((lost / "c").rglob("*")) if path.is_file()).unlink()
    absent = tmp_path / "absent.zarr"
    with pytest.raises(DataError, match="2 of 4 sources cannot be read"):
        describe.main([str(good), str(silent), str(lost), str(absent)])

    text = capsys.readouterr().out
    assert lines(text, str(good))["completeness"].startswith("every chunk exists")
    assert lines(text, str(silent))["voxel size"].startswith("unknown")
    assert "chunks are missing or empty files" in lines(text, str(lost))["completeness"]
    assert f"{absent} does not exist" in text


def test_an_address_and_a_level_are_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    steps = []
    for level in range(2):
        group.create_array(str(level), shape=RAW.shape, dtype=">f4")[...] = RAW
        scale = {"type": "scale", "scale": [40, 4 * 2**level, 4 * 2**level]}
        steps.append({"path": str(level), "coordinateTransformations": [scale]})
    group.attrs["multiscales"] = [{"axes": space("nanometer"), "datasets": steps}]
    address = f"file://{tmp_path}/a.zarr"
    describe.main([address, "--mip", "1"])

    known = lines(capsys.readouterr().out, address)
    assert known["voxel size"].endswith("file: OME-Zarr scale [40, 8, 8] nm")
    assert known["byte order"].startswith("big-endian")
    assert known["completeness"].startswith("checked while reading")
