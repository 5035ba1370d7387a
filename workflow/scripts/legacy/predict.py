"""Predicts the tiles prepared by legacy_arrays.py with the latest checkpoint of a folder.

    python predict.py --input FOLDER --checkpoint FOLDER --work FOLDER --output FOLDER

INPUT contains plan.json and input.npy (C, Z, Y, X), which is memory-mapped: uint8, or float32 in
[0, 1]. OUTPUT receives HEAD.npy (C, Z, Y, X) for each head of the plan, as stored: uint8 by
truncation of 255 x, or float32. An interrupted prediction resumes after the last finished tile.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time

import numpy as np

import record
from checkpoint import latest, restore
from mknet import named_like, write
from tf1 import session, tf

DONE = "done.txt"
SHOW_SECONDS = 10.0


def identity(plan_path, prefix):
    """Digest of a prediction: its plan, and the checksums in the index of its checkpoint."""
    digest = hashlib.sha256()
    for path in (plan_path, prefix + ".index"):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def open_outputs(folder, plan):
    """{head: (C, Z, Y, X) memory-mapped for writing}, from an earlier run or new."""
    outputs = {}
    for head, channels in plan["heads"].items():
        path = os.path.join(folder, head + ".npy")
        shape = tuple([channels] + plan["output_shape"])
        if not os.path.isfile(path):
            partial = path + ".partial"
            np.lib.format.open_memmap(partial, "w+", np.dtype(plan["dtype"]), shape).flush()
            os.rename(partial, path)
        outputs[head] = np.load(path, mmap_mode="r+")
    return outputs


def read_done(folder):
    """Indices of the finished tiles; drops an incomplete last line."""
    path = os.path.join(folder, DONE)
    lines = []
    if os.path.isfile(path):
        with open(path) as file:
            lines = [line for line in file if line.endswith("\n")]
    with open(path + ".partial", "w") as file:
        file.writelines(lines)
    os.rename(path + ".partial", path)
    return {int(line) for line in lines}


def box(begin, shape):
    return tuple([slice(None)] + [slice(b, b + n) for b, n in zip(begin, shape)])


def read_window(source, begin, plan):
    """The network's input (C, Z, Y, X) float32: raw in [-1, 1], descriptors in [0, 1]."""
    window = source[box(begin, plan["window_shape"])]
    values = window.astype(np.float32) / np.float32(255 if window.dtype == np.uint8 else 1)
    values[: plan["raw_channels"]] = values[: plan["raw_channels"]] * 2 - 1
    return values


def stored(values, dtype):
    """Predictions in [0, 1] as stored: uint8 by truncation (0.999 -> 254), or float32."""
    return (values * np.float32(255)).astype(np.uint8) if dtype == "uint8" else values


DIVERGED = (
    "error: the network predicts NaN or infinity (%s) in the tile at %s (z, y, x, voxels): its "
    "training diverged; train it again with a lower `optimizer.lr`"
)


def predict(opened, names, plan, source, folder):
    """Predicts every tile that is not finished."""
    outputs, done = open_outputs(folder, plan), read_done(folder)
    heads = sorted(plan["heads"])
    missing = [index for index in range(len(plan["tiles"])) if index not in done]
    if done:
        print("[predict] %d of %d tiles are done already" % (len(done), len(plan["tiles"])))
    shown = time.time()
    with open(os.path.join(folder, DONE), "a") as log:
        for count, index in enumerate(missing, 1):
            begin = plan["tiles"][index]
            fed = {names["raw"]: read_window(source, begin, plan)}
            predictions = opened.run([names["pred_" + head] for head in heads], fed)
            for head, values in zip(heads, predictions):
                if not np.isfinite(values).all():
                    sys.exit(DIVERGED % (head, begin))
                core = outputs[head][box(begin, plan["core_shape"])]
                core[...] = stored(values[box([0, 0, 0], core.shape[1:])], plan["dtype"])
                outputs[head].flush()
            log.write("%d\n" % index)
            log.flush()
            if time.time() - shown > SHOW_SECONDS or count == len(missing):
                print("[predict] %d/%d tiles" % (count, len(missing)), flush=True)
                shown = time.time()


def describe(folder, iteration, seconds):
    """Writes prediction.json: facts for the manifest that are available only in this image."""
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    facts = {
        "image": image,
        "iteration": iteration,
        "python": sys.version.split()[0],
        "tensorflow": tf.VERSION if hasattr(tf, "VERSION") else tf.__version__,
        "seconds": round(seconds, 3),
    }
    with open(os.path.join(folder, "prediction.json"), "w") as file:
        json.dump(facts, file, indent=1, sort_keys=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True, help="JSON; inputs: tiles, checkpoint")
    parser.add_argument("--work", required=True, help="folder of resumable work")
    parser.add_argument("--output", required=True)
    args = parser.parse_args(argv)
    job = json.loads(args.job)
    inputs, job_record = job["inputs"], record.start(job)
    begun = time.time()
    prefix, iteration = latest(inputs["checkpoint"])
    if prefix is None:
        sys.exit(
            "error: no train_net_checkpoint_*.index in %s; train or fetch one" % inputs["checkpoint"]
        )
    plan_path = os.path.join(inputs["tiles"], "plan.json")
    with open(plan_path) as file:
        plan = json.load(file)
    folder = os.path.join(args.work, identity(plan_path, prefix))
    network = named_like(plan["network"], prefix)
    write(folder, "config", network, plan["window_shape"], False)
    with open(os.path.join(folder, "config.json")) as file:
        names = json.load(file)
    source = np.load(os.path.join(inputs["tiles"], "input.npy"), mmap_mode="r")
    tf.reset_default_graph()
    tf.train.import_meta_graph(os.path.join(folder, "config.meta"))
    with session() as opened:
        restore(opened, prefix)
        predict(opened, names, plan, source, folder)
    describe(folder, iteration, time.time() - begun)
    partial = args.output + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.move(folder, partial)  # copies to another disk
    record.write(job_record, [(partial, args.output)])
    print("[predict] iteration %d -> %s" % (iteration, args.output), flush=True)


if __name__ == "__main__":
    main()
