"""Reads the messages of legacy_batches.py from a pipe: a header in JSON, then the batches.

A message is its length (8 bytes, little-endian) and its bytes; a batch is an .npz.
"""

import io
import json
import struct
import sys

import numpy as np

PICTURE, PLACE = "picture_", "place_"


def read_message(stream):
    """The bytes of the next message; exits if the sender ended early."""
    size = stream.read(8)
    body = stream.read(struct.unpack("<Q", size)[0]) if len(size) == 8 else b""
    if len(size) < 8 or len(body) < struct.unpack("<Q", size)[0]:
        sys.exit("error: the batches ended early; the log of legacy_batches.py says why")
    return body


def read_header(stream):
    """The first message: network, folder, first, last."""
    return json.loads(read_message(stream).decode())


def read_batch(stream, names):
    """{tensor name: array} of the next batch, and of a snapshot {array: (values, offset in nm)}.

    `names`: the .json of the graph.
    """
    fed, pictures = {}, {}
    with np.load(io.BytesIO(read_message(stream))) as arrays:
        for key, tensor in names.items():
            if key == "raw" or key.startswith(("gt_", "weight_")):
                fed[tensor] = arrays[key]
        for key in arrays.files:
            if key.startswith(PICTURE):
                name = key[len(PICTURE) :]
                pictures[name] = (arrays[key], arrays[PLACE + name].tolist())
    return fed, pictures
