"""The limits on the size and complexity of input from files, servers and settings.

Those of one file format alone are in the module that reads it. Valid content stays far below them.
Content beyond a limit is refused in one line that names it, before the memory or the time is spent.
docs/reference/limits.md lists them.
"""

from __future__ import annotations

# ---------------------------------------------------------------- bytes

UNPACKED_BYTES = 2**31
"""Bytes that compressed content may have where no header says how many there should be."""
CHUNK_BYTES = 2**31
"""Bytes of one chunk, block, strip or tile without compression, as its metadata state them."""
OBJECT_BYTES = 2**31
"""Bytes of one object that a server may send into memory."""
ARCHIVE_BYTES = 2**36
"""Bytes of all files of a zip together, unpacked."""
IMAGE_BYTES = 2**34
"""Bytes of one image of a tif, as its header states them."""
PLANES = 10**7
"""Planes of a tif that its OME-XML may state, and numbers of planes in it."""
INDEX_BYTES = 2**24
"""Bytes of one unpacked index of chunks in a shard of a precomputed layer, 24 for each chunk."""
JSON_BYTES = 2**28
"""Bytes of a JSON text."""
YAML_BYTES = 2**24
"""Bytes of a YAML text."""
TEXT_BYTES = 2**20
"""Bytes of a configuration of ZNN or ELEKTRONN, of a coordinate list of SEAMLeSS, and of the index
of a TensorFlow checkpoint."""
LISTING_PAGE_BYTES = 2**26
"""Bytes of one page of a listing; pages of S3 have 1000 objects, some 400 kB."""

# ---------------------------------------------------------------- depth

DEPTH = 100
"""Levels of nested lists and mappings: JSON, YAML, pickles, torch's files, ELEKTRONN's values."""

# ---------------------------------------------------------------- count and time

SHARD_CHUNKS = 2**20
"""Chunks of one shard of a zarr, whose index is read as a whole."""
JPEG_SCANS = 100
"""Scans of a jpeg, each of which may pass over all pixels; progressive ones have some ten."""
MESSAGE_CHARACTERS = 4000
"""Characters of an error message, which may quote foreign content."""
SETTING_CHARACTERS = 2**16
"""Characters of one text in settings."""
YAML_VALUES = 10**6
"""Values of a YAML text, those that an alias repeats counted each time."""
PICKLE_STEPS = 4 * 10**6
"""Operations of a pickle; arrays need some twenty each."""
EXPRESSION_STEPS = 5 * 10**5
"""Expressions that a configuration of ELEKTRONN may evaluate, and elements that it may make."""
EXPRESSION_ELEMENTS = 10_000
"""Elements or characters of one value of such a configuration, without those inside elements."""
LAYERS = 200
"""Layers with weights of a network."""
MAPS = 10**5
"""Feature maps, units or outputs of a layer of a network."""
WEIGHTS = 10**9
"""Weights and biases of a network; those that are known for EM have a tenth of it at most."""
PATCH_VALUES = 2**31
"""Values of the patches that a network reads at once, in training or for a prediction."""
GRAPH_PARTS = 1000
"""Nodes and edges of a network of ZNN."""
EXPRESSION_NUMBER = 10**18
"""Largest number in a configuration of ELEKTRONN or ZNN; n_steps is often 10**12."""
ZNN_SAMPLES = 10_000
"""Samples that a range such as 2-3,7 in a configuration of ZNN may name."""
ZNN_SIZE = 10**6
"""Voxels of a filter, a stride, a patch or a field of view of ZNN along an axis."""
ARCHIVE_FILES = 10**6
"""Files of a zip."""
LISTED_OBJECTS = 10**7
"""Objects of a listing, and of folders in it."""
EMPTY_PAGES = 100
"""Pages of a listing, one after the other, that list nothing."""
ABSENT_CHUNKS = 10**5
"""Missing chunks that are counted; a wrong shape can ask for more names than memory holds."""
LEAST_BYTES_PER_S = 1000
"""Speed of an answer, on average after a minute, below which a server counts as not answering."""
ANSWER_S = 60
"""Seconds after which the speed of an answer counts."""

# ---------------------------------------------------------------- names

NAME_BYTES = 255
"""Bytes of the name of a file or folder, as on all common disks."""
PATH_BYTES = 4095
"""Bytes of a path on Linux."""


def counted(number: int) -> str:
    """A count of foreign content for messages; str refuses those of more than 4300 digits."""
    return str(number) if number <= 10**18 else "more than 10^18"
