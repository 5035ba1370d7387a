"""The `info` file of precomputed layers, checked. Converts the format's x, y, z to z, y, x.

Format: github.com/google/neuroglancer, src/datasource/precomputed/volume.md. Standard library only,
because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrace.errors import DataError
from retrace.formats.contract import Description, Statement
from retrace.formats.reader import refuse_large_chunk
from retrace.geometry import NmTriple, Triple, VoxelBox, checked_voxel_size, in_nm, triple

TYPES = (
    *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
    *("float32", "float64"),
)
ENCODINGS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "raw": dict.fromkeys(TYPES, ()),
    "compressed_segmentation": {"uint32": (), "uint64": ()},
    "jpeg": {"uint8": (1, 3)},
    "png": {"uint8": (1, 2, 3, 4), "uint16": (1,)},
}
"""The encodings that are read: each type's numbers of channels, () for any."""
SHARD_TEXTS: Mapping[str, tuple[str, ...]] = {
    "@type": ("neuroglancer_uint64_sharded_v1",),
    "hash": ("identity", "murmurhash3_x86_128"),
    "minishard_index_encoding": ("raw", "gzip"),
    "data_encoding": ("raw", "gzip"),
}
"""The values that the texts in `sharding` may have."""
SHARD_BITS = ("preshift_bits", "minishard_bits", "shard_bits")
CHUNK_NUMBER_BITS = 64
Info = Mapping[str, Any]


@dataclass(frozen=True)
class LayerLevel:
    """One level of a layer; lengths in the order z, y, x."""

    key: str
    encoding: str
    dtype: str
    channels: int
    voxel_size_nm: NmTriple
    box: VoxelBox
    """In voxels of the level."""
    chunks: Triple
    scale: Info
    """Its entry of `info`, with what only some encodings have."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Z, Y, X), or (C, Z, Y, X) with several channels."""
        return (*([self.channels] if self.channels > 1 else []), *self.box.shape)

    def describe(self) -> Description:
        """What the layer says about the level."""
        size, start = list(self.voxel_size_nm), in_nm(self.box.offset, self.voxel_size_nm)
        position = f"`voxel_offset` {list(self.box.offset)} voxels = {list(start)} nm"
        return Description(
            self.shape,
            self.dtype,
            "none" if self.dtype in ("int8", "uint8") else "little",
            "czyx" if self.channels > 1 else "zyx",
            "the axes of a precomputed layer",
            {},
            (Statement(self.voxel_size_nm, f"`resolution` {size} nm"),),
            (Statement(start, position),),
            "each chunk that is read",
        )


def layer_level(path: str, info: Info, mip: int) -> LayerLevel:
    """Level `mip` of the layer at `path`; DataError for an `info` that makes no sense."""
    scale = _scale(path, info, mip)
    try:
        level = _level(info, scale)
    except DataError as error:
        raise DataError(
            f"{path}: `info` is damaged, for {error}; restore it, or correct `path`"
        ) from error
    _check_encoding(path, level)
    return level


def _scale(path: str, info: Info, mip: int) -> Info:
    """The entry of level `mip`; DataError lists the existing levels."""
    found = info.get("scales")
    scales = found if isinstance(found, list) else []
    if not 0 <= mip < len(scales):
        entries = [s if isinstance(s, Mapping) else {} for s in scales]
        sizes = (_reversed(entry.get("resolution")) for entry in entries)
        existing = ", ".join(f"{i}: {size} nm" for i, size in enumerate(sizes))
        raise DataError(
            f"{path} has no mip {mip}; it has {existing or 'none'} (z, y, x). Correct `mip` in the "
            "dataset's config"
        )
    scale = scales[mip]
    return scale if isinstance(scale, Mapping) else {}


def _level(info: Info, scale: Info) -> LayerLevel:
    dtype, channels = str(info.get("data_type")).lower(), info.get("num_channels")
    if dtype not in TYPES:
        raise DataError(f"`data_type` is {info.get('data_type')!r}; allowed: {', '.join(TYPES)}")
    if not _is_count(channels):
        raise DataError(f"`num_channels` is {channels!r}; a whole number from 1 on is needed")
    for key in ("key", "encoding"):
        if not isinstance(scale.get(key), str):
            raise DataError(f"`{key}` is {scale.get(key)!r}; a text is needed")
    if scale.get("sharding"):
        _check_sharding(scale["sharding"])
    offset = _three("voxel_offset", scale.get("voxel_offset") or [0, 0, 0])
    chunk_sizes = scale.get("chunk_sizes")
    chunks = chunk_sizes[0] if isinstance(chunk_sizes, list) and chunk_sizes else chunk_sizes
    edges = triple(_three("chunk_sizes", chunks, above_0=True))
    itemsize = int(dtype.lstrip("uintfloa")) // 8
    refuse_large_chunk(f"level {scale['key']!r}", (info["num_channels"], *edges), itemsize)
    return LayerLevel(
        scale["key"],
        scale["encoding"],
        dtype,
        int(info["num_channels"]),
        checked_voxel_size(_three("resolution", scale.get("resolution"), above_0=True)),
        VoxelBox(triple(offset), triple(_three("size", scale.get("size"), above_0=True))),
        edges,
        scale,
    )


def _check_encoding(path: str, level: LayerLevel) -> None:
    """DataError for an encoding whose chunks are not read, or not of such values.

    Some decoders make room for whatever a chunk states, which may be more than any machine has:
    only encodings are read whose chunks can be compared with `info` before that.
    """
    if level.encoding not in ENCODINGS:
        raise DataError(
            f"{path}: `encoding` of level {level.key!r} is {level.encoding!r}; allowed: "
            f"{', '.join(ENCODINGS)}. Convert the layer to one of them, for example with igneous"
        )
    types = ENCODINGS[level.encoding]
    channels = types.get(level.dtype)
    if channels is None or (channels and level.channels not in channels):
        allowed = (f"{kind} with {_numbers(counts)}" for kind, counts in types.items())
        raise DataError(
            f"{path}: level {level.key!r} has {level.dtype} with {level.channels} channels as "
            f"{level.encoding}; allowed: {', '.join(allowed)}. Restore `info`, or convert the layer"
        )


def _numbers(counts: Sequence[int]) -> str:
    return f"{' or '.join(map(str, counts))} channels" if counts else "any channels"


def _check_sharding(sharding: Any) -> None:
    """DataError for shards that cannot be: cloud-volume would count for years."""
    if not isinstance(sharding, Mapping):
        raise DataError(f"`sharding` is {sharding!r}; an object is needed")
    for key, allowed in SHARD_TEXTS.items():
        if sharding.get(key, allowed[0]) not in allowed:
            raise DataError(
                f"`{key}` of `sharding` is {sharding[key]!r}; allowed: {', '.join(allowed)}"
            )
    bits: list[Any] = [sharding.get(key) for key in SHARD_BITS]
    if not all(_is_count(n) or n == 0 for n in bits) or sum(bits) > CHUNK_NUMBER_BITS:
        raise DataError(
            f"{', '.join(SHARD_BITS)} of `sharding` are {bits}; whole numbers from 0 on are needed,"
            f" {CHUNK_NUMBER_BITS} together at most"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _three(key: str, value: Any, *, above_0: bool = False) -> NmTriple:
    """The numbers of an attribute in the order z, y, x; DataError if they are not three."""
    values = _reversed(value)
    is_numbers = isinstance(values, list) and all(
        isinstance(number, (int, float)) and not isinstance(number, bool) for number in values
    )
    if not is_numbers or len(values) != 3 or (above_0 and not all(v > 0 for v in values)):
        needed = "three numbers above 0" if above_0 else "three numbers"
        raise DataError(f"`{key}` is {value!r}; {needed} are needed")
    return values[0], values[1], values[2]


def _reversed(value: Any) -> Any:
    return list(reversed(value)) if isinstance(value, (list, tuple)) else value
