"""Writes the graphs of a network like the original mknet.py: train_net and config, .meta and .json.

    python mknet.py --settings NETWORK.json --output FOLDER [--like CHECKPOINTS]

With --like, variables are named as in the latest checkpoint of that folder.
"""

import argparse
import json
import os

from checkpoint import latest, names_like
from tf1 import channels_first, channels_last, tf
from unet import build, shape_of


def placeholder(channels, shape, name):
    return tf.placeholder(tf.float32, shape=[channels] + list(shape), name=name)


def mean_squared_error(target, prediction, weight):
    """Weighted squared error, divided by the number of nonzero weights (SUM_BY_NONZERO_WEIGHTS)."""
    return tf.losses.mean_squared_error(target, prediction, weight)


def build_graph(network, input_shape, names):
    """Builds the inference part and returns its outputs (C, Z, Y, X); adds tensor names to `names`."""
    raw = placeholder(network["input_channels"], input_shape, "raw")
    outputs = build(channels_last(raw), network)
    names["raw"] = raw.name
    names["input_shape"] = list(input_shape)
    first = {}
    for head, values in outputs.items():
        names["output_shape"] = shape_of(values)
        first[head] = tf.identity(channels_first(values), name="pred_" + head)
        names["pred_" + head] = first[head].name
    return first


def add_training(network, outputs, names):
    """Adds the loss of every head and the optimiser, whose slots repeat the scope as in the original."""
    losses = []
    for head, values in sorted(outputs.items()):
        shape = values.get_shape().as_list()
        target = placeholder(shape[0], shape[1:], "gt_" + head)
        weight = placeholder(shape[0], shape[1:], "weight_" + head)
        losses.append(mean_squared_error(target, values, weight))
        names["gt_" + head], names["weight_" + head] = target.name, weight.name
    loss = tf.add_n(losses, name="loss")
    settings = network["optimizer"]
    adam = tf.train.AdamOptimizer(
        learning_rate=settings["lr"],
        beta1=settings["betas"][0],
        beta2=settings["betas"][1],
        epsilon=settings["eps"],
    )
    names["loss"], names["optimizer"] = loss.name, adam.minimize(loss).name


def write(folder, name, network, input_shape, training, seed=None):
    """Writes a graph, NAME.meta, and the names of its tensors, NAME.json.

    `seed` decides the initial weights; with None they differ each time, as in the original.
    """
    if not os.path.isdir(folder):
        os.makedirs(folder)
    tf.reset_default_graph()
    tf.set_random_seed(seed)
    names = {"network": network["name"]}
    with tf.variable_scope(network.get("scope", "setup01")):
        outputs = build_graph(network, input_shape, names)
        if training:
            add_training(network, outputs, names)
    tf.train.export_meta_graph(filename=os.path.join(folder, name + ".meta"))
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump(names, file, indent=1, sort_keys=True)


def named_like(network, prefix):
    """The network with its variables named as in the checkpoint `prefix`, if there is one."""
    return dict(network, **names_like(prefix)) if prefix else network


def make(folder, network, seed=None):
    """Writes both graphs, for the network's input shapes in training and inference."""
    write(folder, "train_net", network, network["input_shape"], True, seed)
    write(folder, "config", network, network["inference_shape"], False)
    print("[mknet] %s -> %s" % (network["name"], folder), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="JSON file: the network, as resolved")
    parser.add_argument("--output", required=True, help="folder")
    parser.add_argument("--like", help="folder of a checkpoint")
    args = parser.parse_args(argv)
    with open(args.settings) as file:
        network = json.load(file)
    make(args.output, named_like(network, latest(args.like)[0] if args.like else None))


if __name__ == "__main__":
    main()
