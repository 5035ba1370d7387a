"""Readers of volumes for tests/fuzzing.py: zarr, n5, h5, tif, precomputed layers, OME-Zarr."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import tifffile
import zarr
from PIL import Image
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import file_server
from fuzzing import FuzzReader
from retrace.formats.headers import read_header
from retrace.geometry import VoxelBox
from retrace.storage.volumes import open_volume
from tiny_n5 import write_n5

SHAPE = (4, 16, 16)
VALUES = np.random.default_rng(0).integers(0, 6, SHAPE).astype(np.uint16)
PLACE = {"resolution": [40, 4, 4], "offset": [400, 40, 40]}
CHUNKS = (4, 8, 8)
MOST_VOXELS = 10**6


def read_volume(path: Path | str, array: str = "", **options: Any) -> dict[str, Any]:
    """What a program gets to know of a volume; of a very large one, the first corner."""
    volume = open_volume(path, array, **options)
    box = volume.box
    if np.prod(box.shape, dtype=object) > MOST_VOXELS:
        first = (min(box.shape[0], 32), min(box.shape[1], 32), min(box.shape[2], 32))
        box = VoxelBox(box.offset, first)
    return {
        "box": [volume.box.offset, volume.box.shape],
        "size": [str(n) for n in volume.voxel_size_nm],
        "values": volume.read(box),
    }


# ---------------------------------------------------------------- zarr


def write_v2(folder: Path, compressor: Any, filters: Any = None) -> None:
    """A zarr of format 2 in which the array is `raw`."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    array = group.create_array(
        "raw", shape=SHAPE, chunks=CHUNKS, dtype="u2", compressors=compressor, filters=filters
    )
    array.attrs.update(PLACE)
    array[...] = VALUES


def write_v3(folder: Path, codecs: Any, **options: Any) -> None:
    """A zarr of format 3 in which the array is `raw`."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    array = group.create_array(
        "raw", shape=SHAPE, chunks=CHUNKS, dtype="u2", compressors=codecs, **options
    )
    array.attrs.update(PLACE)
    array[...] = VALUES


def write_image(folder: Path, version: int) -> None:
    """An OME-Zarr image of one level, 0.4 or 0.5."""
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    steps = [
        {"type": "scale", "scale": PLACE["resolution"]},
        {"type": "translation", "translation": PLACE["offset"]},
    ]
    levels = [{"path": "0", "coordinateTransformations": steps}]
    ome: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": levels, "version": "0.4"}]}
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2 if version == 4 else 3)
    group.attrs.update(ome if version == 4 else {"ome": {"version": "0.5", **ome}})
    group.create_array("0", data=VALUES, chunks=CHUNKS)


def read_zarr(folder: Path) -> Any:
    """The array."""
    return read_volume(folder / "a.zarr", "raw")


def read_image(folder: Path) -> Any:
    """The first level of the image."""
    return read_volume(folder / "a.zarr")


V2_CODECS: dict[str, tuple[Any, bool]] = {
    "raw": (None, False),
    "zlib": (numcodecs.Zlib(1), False),
    "gzip": (numcodecs.GZip(1), True),
    "bz2": (numcodecs.BZ2(1), True),
    "lzma": (numcodecs.LZMA(), True),
    "zstd": (numcodecs.Zstd(1, checksum=True), True),
    "blosc": (numcodecs.Blosc("lz4", shuffle=1), False),
    "lz4": (numcodecs.LZ4(), False),
}
"""By name: the compressor, and whether it has a checksum; Adler-32 of zlib is a weak one."""
V3_CODECS: dict[str, tuple[Any, bool]] = {
    "zstd": (ZstdCodec(level=1, checksum=True), True),
    "gzip": (GzipCodec(level=1), True),
    "blosc": (BloscCodec(cname="zstd"), False),
    "crc32c": (Crc32cCodec(), True),
}


def zarr_readers() -> Iterator[FuzzReader]:
    """zarr in both formats."""
    raw = partial(write_v2, compressor=None)
    yield FuzzReader("zarr 2 metadata", raw, read_zarr, "a.zarr/**/.z*")
    yield FuzzReader("WEBKNOSSOS dataset", write_webknossos, read_webknossos, "*.json")
    for name, (codec, checksum) in V2_CODECS.items():
        write = partial(write_v2, compressor=codec)
        yield FuzzReader(f"zarr 2 chunk {name}", write, read_zarr, "a.zarr/raw/[0-9]*", checksum)
    yield FuzzReader(
        "zarr 2 chunk crc32 filter",
        partial(write_v2, compressor=None, filters=[numcodecs.CRC32()]),
        read_zarr,
        "a.zarr/raw/[0-9]*",
        True,
    )
    yield FuzzReader(
        "zarr 3 metadata", partial(write_v3, codecs=None), read_zarr, "a.zarr/**/zarr.json"
    )
    for name, (codec, checksum) in V3_CODECS.items():
        write = partial(write_v3, codecs=codec)
        yield FuzzReader(f"zarr 3 chunk {name}", write, read_zarr, "a.zarr/raw/c/**/*", checksum)
    for name, codec in (("zstd", ZstdCodec(level=1, checksum=True)), ("crc32c", Crc32cCodec())):
        write = partial(write_v3, codecs=codec, shards=(4, 16, 16))
        yield FuzzReader(f"zarr 3 shard {name}", write, read_zarr, "a.zarr/raw/c/**/*", True)
    for version in (4, 5):
        pattern = "a.zarr/**/.z*" if version == 4 else "a.zarr/**/zarr.json"
        write = partial(write_image, version=version)
        yield FuzzReader(f"OME-Zarr 0.{version} metadata", write, read_image, pattern)


# ---------------------------------------------------------------- n5, h5, tif


def n5_readers() -> Iterator[FuzzReader]:
    """n5 in every compression."""

    def read(folder: Path) -> Any:
        return read_volume(folder / "a.n5", "raw", voxel_size_nm=(40, 4, 4))

    def write(folder: Path, **compression: Any) -> None:
        place = {"resolution": [4, 4, 40], "offset": [40, 40, 400]}
        write_n5(folder / "a.n5" / "raw", VALUES, CHUNKS, compression=compression, **place)

    yield FuzzReader("n5 metadata", partial(write, type="raw"), read, "a.n5/raw/attributes.json")
    for name, options in (
        ("raw", {"type": "raw"}),
        ("gzip", {"type": "gzip"}),
        ("zlib", {"type": "gzip", "useZlib": True}),
        ("bzip2", {"type": "bzip2"}),
        ("xz", {"type": "xz"}),
    ):
        yield FuzzReader(
            f"n5 block {name}",
            partial(write, **options),
            read,
            "a.n5/raw/[0-9]*/**/*",
            name not in ("raw", "zlib"),
        )


def write_h5(folder: Path, **options: Any) -> None:
    """An h5 whose dataset `raw` has resolution and offset."""
    with h5py.File(folder / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", data=VALUES, **options)
        dataset.attrs.update(PLACE)


def write_tifs(folder: Path) -> None:
    """A folder of sections."""
    (folder / "a").mkdir()
    for z, section in enumerate(VALUES):
        tifffile.imwrite(folder / "a" / f"{z:03d}.tif", section, compression="zlib")


def file_readers() -> Iterator[FuzzReader]:
    """h5 and tif."""

    def read_h5(folder: Path) -> Any:
        return read_volume(folder / "a.h5", "raw")

    def read_tif(folder: Path, name: str) -> Any:
        return read_volume(folder / name, voxel_size_nm=(40, 4, 4))

    yield FuzzReader("h5 contiguous", write_h5, read_h5)
    yield FuzzReader("h5 gzip", partial(write_h5, chunks=CHUNKS, compression="gzip"), read_h5)
    checked = partial(write_h5, chunks=CHUNKS, fletcher32=True, shuffle=True)
    yield FuzzReader("h5 fletcher32", checked, read_h5)
    for name, options in (
        ("plain", {"photometric": "minisblack", "metadata": None}),
        ("lzw", {"photometric": "minisblack", "metadata": None, "compression": "lzw"}),
        ("zstd tiles", {"photometric": "minisblack", "compression": "zstd", "tile": (16, 16)}),
        ("ImageJ", {"imagej": True, "metadata": {"axes": "ZYX"}}),
        ("OME", {"ome": True, "metadata": {"axes": "ZYX"}}),
    ):

        def write(folder: Path, options: Any = options) -> None:
            tifffile.imwrite(folder / "a.tif", VALUES, **options)

        yield FuzzReader(f"tif {name}", write, partial(read_tif, name="a.tif"))
    yield FuzzReader("tif folder", write_tifs, partial(read_tif, name="a"), "a/*")


# ---------------------------------------------------------------- layers


def _info(encoding: str, **scale: Any) -> dict[str, Any]:
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if encoding == "compressed_segmentation" else "image",
        "data_type": "uint64" if encoding == "compressed_segmentation" else "uint16",
        "num_channels": 1,
        "scales": [
            {
                "key": "4_4_40",
                "size": list(SHAPE[::-1]),
                "resolution": [4, 4, 40],
                "voxel_offset": [10, 10, 10],
                "chunk_sizes": [[8, 8, 4]],
                "encoding": encoding,
                **scale,
            }
        ],
    }


def write_layer(folder: Path, encoding: str, *, zipped: bool = False, **scale: Any) -> None:
    """A layer that CloudVolume writes."""
    from cloudvolume import CloudVolume

    layer = CloudVolume(
        f"file://{folder}/layer",
        info=_info(encoding, **scale),
        compress="gzip" if zipped else False,
        progress=False,
        fill_missing=True,
    )
    layer.commit_info()
    dtype = layer.dtype
    layer[10:26, 10:26, 10:14] = np.asfortranarray(VALUES.T.astype(dtype))


def read_layer(folder: Path) -> Any:
    """The layer, as a file:// address."""
    return read_volume(f"file://{folder}/layer")


SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "minishard_bits": 1,
    "shard_bits": 1,
    "preshift_bits": 0,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}
BLOCKS = {"compressed_segmentation_block_size": [8, 8, 4]}


def write_jpeg(folder: Path) -> None:
    """A layer of 8 bits whose chunks are jpeg."""
    from cloudvolume import CloudVolume

    info = _info("jpeg") | {"data_type": "uint8"}
    layer = CloudVolume(f"file://{folder}/layer", info=info, compress=False, progress=False)
    layer.commit_info()
    layer[10:26, 10:26, 10:14] = np.asfortranarray((40 * VALUES.T).astype(np.uint8))


def write_png(folder: Path) -> None:
    """The same layer with chunks of png, as other programs write them."""
    write_jpeg(folder)
    info = folder / "layer/info"
    info.write_text(info.read_text().replace("jpeg", "png"))
    for chunk in (folder / "layer/4_4_40").iterdir():
        with Image.open(chunk) as image:
            pixels = image.copy()
        pixels.save(chunk, "png")


WEBKNOSSOS = {
    "id": {"name": "d", "team": ""},
    "dataLayers": [
        {
            "name": "color",
            "category": "color",
            "dataFormat": "zarr",
            "boundingBox": {"topLeft": [0, 0, 0], "width": 16, "height": 16, "depth": 4},
            "mags": [{"mag": 1, "path": "./color/1", "axisOrder": {"x": 2, "y": 1, "z": 0}}],
        }
    ],
    "scale": {"factor": [4.6, 5, 45], "unit": "nanometer"},
}


def write_webknossos(folder: Path) -> None:
    """A zarr array below a dataset of WEBKNOSSOS."""
    zarr.create_array(folder / "color/1", data=VALUES, chunks=CHUNKS, zarr_format=2)
    (folder / "datasource-properties.json").write_text(json.dumps(WEBKNOSSOS))


def read_webknossos(folder: Path) -> Any:
    """The array, with what the dataset states."""
    return read_volume(folder / "color/1")


def layer_readers() -> Iterator[FuzzReader]:
    """Precomputed layers in several encodings."""
    chunks = "layer/4_4_40/*"
    raw = partial(write_layer, encoding="raw")
    yield FuzzReader("layer info", raw, read_layer, "layer/info")
    yield FuzzReader("layer chunk raw", raw, read_layer, chunks)
    zipped = partial(write_layer, encoding="raw", zipped=True)
    yield FuzzReader("layer chunk gzip", zipped, read_layer, chunks, True)
    yield FuzzReader("layer chunk jpeg", write_jpeg, read_layer, chunks)
    yield FuzzReader("layer chunk png", write_png, read_layer, chunks)
    packed = partial(write_layer, encoding="compressed_segmentation", **BLOCKS)
    yield FuzzReader("layer compressed_segmentation", packed, read_layer, chunks)
    yield FuzzReader("layer shard", write_sharded, read_layer, chunks)


def write_sharded(folder: Path) -> None:
    """A layer whose chunks are in shards, with gzip in index and data."""
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    write_layer(folder, "raw")
    info = json.loads((folder / "layer/info").read_text())
    chunks = {}
    for file in sorted((folder / "layer/4_4_40").iterdir()):
        begin = [int(part.split("-")[0]) - 10 for part in file.name.split("_")]
        chunks[(begin[0] // 8) + 2 * (begin[1] // 8)] = file.read_bytes()
        file.unlink()
    info["scales"][0]["sharding"] = SHARDING
    (folder / "layer/info").write_text(json.dumps(info))
    spec = ShardingSpecification.from_dict(dict(SHARDING))
    for name, content in spec.synthesize_shards(chunks).items():
        (folder / "layer/4_4_40" / name).write_bytes(content)


# ---------------------------------------------------------------- over HTTP


class _Handler(SimpleHTTPRequestHandler):
    """Files of a folder; chunks that begin like gzip have that Content-Encoding."""

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file() and path.parent.name == "raw" and path.read_bytes()[:2] == b"\x1f\x8b":
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a web server of a folder."""
    with file_server.answering(partial(_Handler, directory=str(folder))) as address:
        yield address


def write_served(folder: Path) -> None:
    """A zarr whose uncompressed chunks are stored gzipped, for a Content-Encoding."""
    write_v2(folder, None)
    for chunk in (folder / "a.zarr/raw").glob("[0-9]*"):
        chunk.write_bytes(gzip.compress(chunk.read_bytes(), mtime=0))


def read_served(folder: Path) -> Any:
    """The array over HTTP."""
    return read_volume(f"{_served(folder)}/a.zarr", "raw")


UNTIL_END = ExitStack()
"""Holds the servers."""


@cache
def _served(folder: Path) -> str:
    """The address of a web server of a folder, until the process ends."""
    return UNTIL_END.enter_context(serving(folder))


def http_readers() -> Iterator[FuzzReader]:
    """Volumes of web servers."""
    raw = partial(write_v2, compressor=None)
    yield FuzzReader("zarr over HTTP: metadata", raw, read_served, "a.zarr/**/.z*")
    # A chunk that does not begin like gzip any more is served as it is, and then has another size.
    yield FuzzReader(
        "zarr over HTTP: gzip encoding", write_served, read_served, "a.zarr/raw/[0-9]*", True
    )


# ---------------------------------------------------------------- headers, which planning reads


def header_readers() -> Iterator[FuzzReader]:
    """The same formats without their data."""
    cases: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
        "zarr 2": (partial(write_v2, compressor=None), "a.zarr", "raw", "a.zarr/**/.z*"),
        "zarr 3": (partial(write_v3, codecs=None), "a.zarr", "raw", "a.zarr/**/zarr.json"),
        "OME-Zarr": (partial(write_image, version=4), "a.zarr", "", "a.zarr/**/.z*"),
        "h5": (write_h5, "a.h5", "raw", "*"),
        "tif": (write_tifs, "a", "", "a/*"),
        "layer": (partial(write_layer, encoding="raw"), "layer", "", "layer/info"),
    }
    for name, (write, path, array, pattern) in cases.items():

        def read(folder: Path, path: str = path, array: str = array) -> Any:
            where = f"file://{folder}/{path}" if path == "layer" else str(folder / path)
            return read_header(where, array)

        yield FuzzReader(f"planning: {name}", write, read, pattern)


def volume_readers() -> list[FuzzReader]:
    """All readers of volumes."""
    groups = (zarr_readers, n5_readers, file_readers, layer_readers, http_readers, header_readers)
    return [reader for group in groups for reader in group()]
