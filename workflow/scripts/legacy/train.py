"""Trains the graph of mknet.py on batches from a pipe, like the original train.py.

    python train.py --batches PIPE --work FOLDER --output FOLDER --history FILE [--begin FOLDER]

The header of the pipe (legacy_batches.py) names the network, the folder below --work and the
iterations. Training resumes from the latest train_net_checkpoint_*.index in that folder, or starts
from that in --begin. --output receives the last checkpoint and the graphs, --history the losses.
"""

import argparse
import json
import math
import os
import shutil
import signal
import sys
import time

import numpy as np

import record
import snapshots
import stream
from checkpoint import STEM, latest, restore
from mknet import make, named_like
from tf1 import session, tf

LOSSES = "losses.txt"
SNAPSHOTS = "snapshots"
HISTORY_ROWS = 2000
SAVE_SECONDS = 600.0
SHOW_SECONDS = 10.0


class Stopper(object):
    """Records SIGTERM and SIGINT, so that the current iteration is finished and saved first."""

    def __init__(self):
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.note)

    def note(self, number, frame):
        self.number = number


def add_counter():
    """The variable that counts iterations, as in gunpowder's Train node, and its increment."""
    with tf.variable_scope("gunpowder"):
        counter = tf.get_variable(
            "iteration", [1], initializer=tf.zeros_initializer(), trainable=False
        )
    return counter, counter.assign_add([1.0])


def keep_losses(path, iteration):
    """Drops the losses after `iteration` that an interrupted run left."""
    lines = []
    if os.path.isfile(path):
        with open(path) as file:
            lines = [line for line in file if line.endswith("\n")]
    with open(path + ".partial", "w") as file:
        file.writelines(line for line in lines if int(line.split()[0]) <= iteration)
    os.rename(path + ".partial", path)


def beginning(folder, header, begin):
    """The checkpoint to continue from: (prefix, iteration); (None, 0) without one."""
    prefix, done = latest(folder)
    if prefix is None and begin:
        prefix, done = latest(begin)
    if done != header["first"]:
        sys.exit(
            "error: %s is at iteration %d, the batches begin at %d; run the same command again"
            % (folder, done, header["first"])
        )
    return prefix, done


def build(folder, header, prefix):
    """Writes the graphs and loads the one to train; returns the names of its tensors."""
    make(folder, named_like(header["network"], prefix), header["seed"])
    tf.reset_default_graph()
    tf.train.import_meta_graph(os.path.join(folder, "train_net.meta"))
    with open(os.path.join(folder, "train_net.json")) as file:
        return json.load(file)


def run(stream_, folder, header, begin):
    """Trains in `folder` until header["last"]; exits after a signal, with the state saved."""
    stopper = Stopper()
    prefix, done = beginning(folder, header, begin)
    names = build(folder, header, prefix)
    counter, count = add_counter()
    steps = [names["optimizer"], names["loss"], count]
    saver = tf.train.Saver(max_to_keep=2)
    losses = os.path.join(folder, LOSSES)
    keep_losses(losses, done)
    with session() as opened, open(losses, "a") as log:
        opened.run(tf.global_variables_initializer())
        if prefix:
            restore(opened, prefix)
            opened.run(counter.assign([float(done)]))
        if done >= header["last"]:
            save(saver, opened, folder, done)
        batches = (stream.read_batch(stream_, names) for _ in range(done, header["last"]))
        saved = shown = time.time()
        for iteration, (fed, pictures) in enumerate(batches, done + 1):
            heads = sorted(name for name in names if name.startswith("pred_") and pictures)
            fetched = opened.run(steps + [names[head] for head in heads], fed)
            loss = fetched[1]
            if not math.isfinite(loss):
                sys.exit(DIVERGED % (loss, iteration, folder))
            log.write("%d %.9g\n" % (iteration, loss))
            if pictures:
                outputs = dict(zip(heads, fetched[len(steps) :]))
                save_snapshot(folder, header, iteration, pictures, outputs)
            last = stopper.number or iteration == header["last"]
            if last or iteration % header["every"] == 0 or time.time() - saved > SAVE_SECONDS:
                log.flush()
                save(saver, opened, folder, iteration)
                saved = time.time()
            if last or time.time() - shown > SHOW_SECONDS:
                print("[train] %d/%d loss %.6f" % (iteration, header["last"], loss), flush=True)
                shown = time.time()
            if stopper.number:
                sys.exit(128 + stopper.number)


DIVERGED = (
    "error: the loss is %s at iteration %d; nothing was saved since the last checkpoint. Lower "
    "`optimizer.lr`, and delete %s to start over"
)


def save_snapshot(folder, header, iteration, pictures, outputs):
    """Writes the batch of an iteration with the outputs (C, Z, Y, X) before its step."""
    place = pictures["labels"][1]
    for name, values in outputs.items():
        pictures[name] = ((values * np.float32(255)).astype(np.uint8), place)
    snapshots.save(os.path.join(folder, SNAPSHOTS), iteration, pictures, header["voxel_size_nm"])


def save(saver, opened, folder, iteration):
    """Writes train_net_checkpoint_ITERATION; it is valid once its .index, the last file, exists."""
    path = os.path.join(folder, "%s_%d" % (STEM, iteration))
    saver.save(opened, path, write_meta_graph=False)


def copy_checkpoint(folder, partial):
    """Copies the last checkpoint and the graphs to the new folder `partial`."""
    prefix, _ = latest(folder)
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    published = (os.path.basename(prefix) + ".", "train_net.", "config.")
    for name in sorted(os.listdir(folder)):
        if name.startswith(published):
            shutil.copy2(os.path.join(folder, name), os.path.join(partial, name))


def read_losses(path):
    """[(iteration, loss)]."""
    with open(path) as file:
        pairs = [line.split() for line in file]
    return [(int(iteration), float(loss)) for iteration, loss in pairs]


def write_history(path, header, losses, seconds):
    """Writes training.json like train.py of the modern engine, with the loss as one term."""
    length = max(1, -(-len(losses) // HISTORY_ROWS))
    parts = [losses[begin : begin + length] for begin in range(0, len(losses), length)]
    means = [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]
    done = max(0, header["last"] - header["first"])
    content = {
        "dataset": header["dataset"],
        "network": header["network"]["name"],
        "engine": "legacy",
        "iterations": max(header["first"], header["last"]),
        "seed": header["seed"],
        "terms": ["loss"],
        "seconds": round(seconds, 3),
        "iterations_this_run": done,
        "iterations_per_second": round(done / max(seconds, 1e-9), 4),
        "history": [{"iteration": iteration, "loss": loss} for iteration, loss in means],
    }
    record.write_json(path, content)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True, help="JSON; inputs: batches, published")
    parser.add_argument("--work", required=True, help="folder of resumable work")
    parser.add_argument("--output", required=True)
    parser.add_argument("--history", required=True, help="training.json")
    args = parser.parse_args(argv)
    job = json.loads(args.job)
    inputs, job_record = job["inputs"], record.start(job)
    begun = time.time()
    with open(inputs["batches"], "rb") as stream_:
        header = stream.read_header(stream_)
        folder = os.path.join(args.work, header["folder"])
        run(stream_, folder, header, inputs.get("published"))
    losses = read_losses(os.path.join(folder, LOSSES))
    checkpoint, history = args.output + ".partial", record.waiting(args.history)
    copy_checkpoint(folder, checkpoint)
    write_history(history, header, losses, time.time() - begun)
    record.write(job_record, [(checkpoint, args.output), (history, args.history)])
    name = os.path.basename(latest(folder)[0])
    print("[train] %s -> %s" % (name, args.output), flush=True)


if __name__ == "__main__":
    main()
