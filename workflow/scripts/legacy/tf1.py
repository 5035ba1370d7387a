"""TensorFlow with the interface of version 1, whichever version is installed (1.3 to 2.x).

Everything in this folder runs on Python 3.6 and TensorFlow 1.3, inside the legacy image.
"""

import tensorflow

if hasattr(tensorflow, "compat") and hasattr(tensorflow.compat, "v1"):
    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
else:
    tf = tensorflow


def channels_last(array):
    """(C, Z, Y, X) -> (1, Z, Y, X, C): the only layout that TensorFlow convolves on a CPU."""
    return tf.expand_dims(tf.transpose(array, [1, 2, 3, 0]), 0)


def channels_first(array):
    """(1, Z, Y, X, C) -> (C, Z, Y, X)."""
    return tf.transpose(tf.squeeze(array, 0), [3, 0, 1, 2])
