"""Content that asks for too much memory, depth or time is refused in one line, at once."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch

from fuzz_volumes import read_layer, read_zarr, write_layer, write_v2, write_v3
from hostile_content import (
    EXPRESSIONS,
    HUGE,
    YAML,
    by_a_link,
    by_a_relative_link,
    external,
    linked,
    state_huge_chunks,
    virtual,
)
from retrace import limits
from retrace.alignment.stack_files import stack_sets
from retrace.checkpoints import tensorflow
from retrace.checkpoints.tensorflow import Variable, open_bundle, write_tensor_bundle
from retrace.checkpoints.torch_files import read_torch
from retrace.checkpoints.znn import read_h5
from retrace.config.yaml_files import read_yaml
from retrace.elektronn.assignments import read_assignments
from retrace.elektronn.calculator import axes_of
from retrace.errors import ConfigError, DataError, RetraceError
from retrace.formats.examples import read_array
from retrace.formats.examples_source import ExampleArray
from retrace.formats.npz import opened_npz
from retrace.reading import parse_json, read_bytes, read_json_object
from retrace.storage.volumes import open_volume
from retrace.znn.cfg import read_cfg
from retrace.znn.ini_sections import read_sections
from tiny_n5 import write_n5


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_of_elektronn(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.py"
    path.write_text(EXPRESSIONS[name])

    with pytest.raises(RetraceError, match=r"config\.py") as error:
        read_assignments(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_usual_expressions_pass(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(
        "n = 10**12\nfilters = [[3, 3]] * 4 + [[1, 1]] * 2\n"
        "files = [('raw_%i.h5' % i, 'raw') for i in range(300)]\n"
        "pairs = [(i, j) for i in range(50) for j in range(100)]\nlast = files[-1][0]\n"
    )

    values = read_assignments(path)

    assert (values["n"], values["last"], len(values["pairs"])) == (10**12, "raw_299.h5", 5000)
    with pytest.raises(ConfigError, match="300 layers"):
        axes_of([[3]] * 300, [[1]] * 300)


@pytest.mark.parametrize("numbers", ["1-3000000000", "1-999999999", "1-9999,20000-29999"])
def test_ranges_of_znn(tmp_path: Path, numbers: str) -> None:
    path = tmp_path / "a.cfg"
    path.write_text(f"[parameters]\ntrain_range = {numbers}\n")

    with pytest.raises(ConfigError, match=r"a\.cfg:2: train_range is"):
        read_cfg(path)


def test_lines_of_spaces_take_no_long(tmp_path: Path) -> None:
    """ConfigParser's time grows with the square of their number."""
    path = tmp_path / "a.cfg"
    path.write_text("[parameters]\nmax_iter" + " " * 500_000 + "x\n")

    with pytest.raises(ConfigError, match=r"a\.cfg is not a \.cfg file"):
        read_sections(path, ".cfg file")


@pytest.mark.parametrize("name", YAML)
def test_yaml(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML[name])

    with pytest.raises(ConfigError, match=r"a\.yaml (has more than|cannot be read)") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_usual_yaml_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: &b {x: [1, 2]}\n" + "".join(f"k{n}: {{<<: *b}}\n" for n in range(200)))

    assert read_yaml(path)["k199"] == {"x": [1, 2]}


@pytest.mark.parametrize(
    "text", ["[" * 101 + "]" * 101, '{"a":' * 500 + "1" + "}" * 500, "[" * 10**6]
)
def test_json_levels(text: str) -> None:
    with pytest.raises(DataError, match="nested too deeply|cannot be read"):
        parse_json(text, "a.json")
    assert parse_json("[" * 100 + "]" * 100, "a.json")


def test_json_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "x" * 100}))
    monkeypatch.setattr("retrace.reading.JSON_BYTES", 50)

    with pytest.raises(DataError, match="has more than the 50 bytes"):
        read_json_object(path)
    assert len(read_bytes(path)) > 100


# ---------------------------------------------------------------- chunks and images


def _write_n5(folder: Path) -> None:
    write_n5(folder / "a.n5/raw", np.zeros((4, 8, 8), np.uint8), (4, 8, 8))


def _read_n5(folder: Path) -> Any:
    return open_volume(folder / "a.n5", "raw")


CHUNKS: dict[str, tuple[Callable[[Path], object], str, Any]] = {
    "zarr 2": (lambda f: write_v2(f, None), "a.zarr/raw/.zarray", read_zarr),
    "zarr 3": (lambda f: write_v3(f, None), "a.zarr/raw/zarr.json", read_zarr),
    "n5": (_write_n5, "a.n5/raw/attributes.json", _read_n5),
    "layer": (lambda f: write_layer(f, "raw"), "layer/info", read_layer),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks(tmp_path: Path, name: str) -> None:
    write, file, read = CHUNKS[name]
    write(tmp_path)
    state_huge_chunks(tmp_path / file)

    with pytest.raises(DataError, match=rf"chunks of \[.*{HUGE}, {HUGE}\] values"):
        read(tmp_path)


def test_a_tif_of_more_pixels_than_a_machine_holds(tmp_path: Path) -> None:
    entries = [(256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (259, 3, 1, 8)]
    entries += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 2**31), (279, 4, 1, 8)]
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    content = b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(entries)) + tags
    (tmp_path / "a.tif").write_bytes(content + bytes(4))

    with pytest.raises(DataError, match="page 0 states"):
        open_volume(tmp_path / "a.tif", "", voxel_size_nm=(1, 1, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [('SizeZ="2"', 'SizeZ="2000000000"'), ('IFD="0"', 'FirstZ="3000000000" IFD="0"')],
)
def test_an_ome_tif_of_more_planes_than_a_machine_counts(
    tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint8), metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    assert xml is not None and old in xml
    pages = np.zeros((2, 8, 8), np.uint8)
    tifffile.imwrite(path, pages, description=xml.replace(old, new), metadata=None)

    with pytest.raises(DataError, match="states more than 10000000 planes"):
        open_volume(path, "", voxel_size_nm=(1, 1, 1))


# ---------------------------------------------------------------- archives and weights


def test_an_npz_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrace.formats.npz.UNPACKED_BYTES", 2**20)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(2**21, np.uint8))

    with pytest.raises(ValueError, match="1048576 bytes together"), opened_npz(path):
        pass


def test_weights_that_are_not_stored(tmp_path: Path) -> None:
    path, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(ValueError, match=r"tensor \[1000000, 1000000\] that it does not store"):
        read_torch(path)
    torch.save({"w": torch.zeros(10**5)}, path)
    deflated = zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as stored, deflated as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    with pytest.raises(ValueError, match="bytes together are unpacked"):
        read_torch(packed)
    assert read_torch(path)["w"].shape == (10**5,)
    torch.save({"w": torch.empty(10**6, device="meta")}, path)
    with pytest.raises(ValueError, match="does not store"):
        read_torch(path)


LARGE_H5: dict[str, tuple[dict[str, Any], str]] = {
    "never written": (
        {"shape": (10**5, 10**5), "dtype": "f4", "chunks": (100, 100)},
        "40000000000 b",
    ),
    "compressed": ({"data": np.zeros(2**20), "compression": "gzip"}, "8388608 bytes unpacked"),
    "texts": ({"data": ["x" * 10**4] * 10**4}, "a list of texts"),
}


@pytest.mark.parametrize("name", LARGE_H5)
@pytest.mark.parametrize("reader", ["examples", "weights of ZNN"])
def test_h5_that_is_far_larger_in_memory(
    tmp_path: Path, name: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, message = LARGE_H5[name]
    monkeypatch.setattr("retrace.formats.h5_files.UNPACKED_BYTES", 2**20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", **options)

    with pytest.raises(DataError, match=message):
        READERS[reader](tmp_path / "a.h5")


@pytest.mark.parametrize("link", ["hard", "soft", "group"])
def test_weights_that_are_one_object_under_many_names(tmp_path: Path, link: str) -> None:
    """Each name would be read, but the file and its limit see one object."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layer = file.create_group("layer")
        layer["filters"] = np.zeros(10)
        if link == "group":
            file["again"] = layer
        else:
            layer["again"] = h5py.SoftLink("filters") if link == "soft" else layer["filters"]

    with pytest.raises(
        DataError, match="'(again|filters|layer)' in /.* is another name of an object"
    ):
        READERS["weights of ZNN"](tmp_path / "a.h5")


def test_a_checkpoint_whose_variables_share_their_bytes(tmp_path: Path) -> None:
    write_tensor_bundle(tmp_path / "a", {"v": np.zeros(1000, np.float32)})
    data = (tmp_path / "a.data-00000-of-00001").read_bytes()
    one = Variable(1, (1000,), 0, 0, len(data), tensorflow.masked_crc32c(data))
    header = (b"", tensorflow._field(1, 1))
    records = [(f"v{n}".encode(), tensorflow._encoded(one)) for n in range(1000)]
    (tmp_path / "a.index").write_bytes(tensorflow._encoded_table([header, *records]))
    with pytest.raises(DataError, match="its variables 4000000: they overlap"):
        open_bundle(tmp_path / "a")

    long = [(b"v" * 1000, tensorflow._encoded(one))]
    (tmp_path / "a.index").write_bytes(tensorflow._encoded_table([header, *long]))
    with pytest.raises(DataError, match="a name has 1000 bytes"):
        open_bundle(tmp_path / "a")
    (tmp_path / "a.index").write_bytes(bytes(2**20 + 1))
    with pytest.raises(DataError, match="more than the 1048576 bytes"):
        open_bundle(tmp_path / "a")
    with pytest.raises(ValueError, match="more than 64 bits"):
        tensorflow._fields(b"\xff" * 10**6)


def test_blocks_of_an_index_are_read_once(tmp_path: Path) -> None:
    """Each could be named by thousands of entries."""
    content, data = tensorflow._appended(b"", [(b"", tensorflow._field(1, 1))] * 1000)
    content, meta = tensorflow._appended(content, [])
    content, index = tensorflow._appended(content, [(b"%d" % n, data) for n in range(1000)])
    footer = (meta + index).ljust(tensorflow.FOOTER_BYTES - 8, b"\0")
    content += footer + tensorflow.MAGIC.to_bytes(8, "little")
    with pytest.raises(ValueError, match="its blocks overlap"):
        dict(tensorflow._table(content))


# ---------------------------------------------------------------- other files of the machine


READERS: dict[str, Callable[[Path], Any]] = {
    "volume": lambda path: open_volume(path, "images", voxel_size_nm=(1, 1, 1)),
    "examples": lambda path: read_array(ExampleArray(path=str(path), array="images")),
    "weights of ZNN": read_h5,
    "stacks": stack_sets,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("refer", [linked, external, virtual, by_a_link, by_a_relative_link])
def test_h5_reads_no_other_file(tmp_path: Path, reader: str, refer: Callable[..., None]) -> None:
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(4, dtype=np.uint8)
    with h5py.File(path, "w") as file:
        group = file.create_group("in")
        group["itself"] = group
        refer(file, other)

    with pytest.raises(DataError, match=r"is a link to .*other\.h5|are in other files"):
        READERS[reader](path)


def test_the_page_of_limits_is_complete() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/reference/limits.md").read_text()
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))

    assert {name: eval(text.replace("^", "**")) for name, text in rows.items()} == values
