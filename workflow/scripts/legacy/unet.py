"""The original U-Net as a TensorFlow 1 graph (funkey/mala, networks/unet.py).

Variables have the original's names and shapes, so checkpoints can be exchanged both ways.
"""

from tf1 import tf

KERNEL = 3
CONVS_PER_PASS = 2


def shape_of(tensor):
    """Static (z, y, x) of (1, Z, Y, X, C)."""
    return tensor.get_shape().as_list()[1:4]


def variables(kernel_shape, channels):
    """Kernel (Glorot uniform, the default) and bias (zeros) in the current scope."""
    kernel = tf.get_variable("kernel", kernel_shape, tf.float32)
    bias = tf.get_variable("bias", [channels], tf.float32, initializer=tf.zeros_initializer())
    return kernel, bias


def convolution(x, channels, size, name, activation):
    """A valid convolution with bias."""
    with tf.variable_scope(name):
        before = x.get_shape().as_list()[4]
        kernel, bias = variables([size, size, size, before, channels], channels)
        return activation(tf.nn.conv3d(x, kernel, [1, 1, 1, 1, 1], "VALID") + bias)


def conv_pass(x, channels, name):
    """Two valid 3 x 3 x 3 convolutions with ReLU."""
    for index in range(CONVS_PER_PASS):
        x = convolution(x, channels, KERNEL, "%s_%d" % (name, index), tf.nn.relu)
    return x


def upsample(x, factor, channels, name):
    """Transposed convolution, kernel = stride = factor, with bias and ReLU."""
    with tf.variable_scope(name):
        before = x.get_shape().as_list()[4]
        kernel, bias = variables(list(factor) + [channels, before], channels)
        size = [n * f for n, f in zip(shape_of(x), factor)]
        strides = [1] + list(factor) + [1]
        up = tf.nn.conv3d_transpose(x, kernel, [1] + size + [channels], strides, "VALID")
        return tf.nn.relu(up + bias)


def crop(x, shape):
    """The centre of `x`; an odd excess loses one voxel more at the end."""
    begin = [(have - want) // 2 for have, want in zip(shape_of(x), shape)]
    size = list(shape) + [x.get_shape().as_list()[4]]
    return tf.slice(x, [0] + begin + [0], [1] + size)


def unet(x, fmaps, fmap_factor, factors, fmaps_out, level=0):
    """Features (1, Z', Y', X', C) of `x` (1, Z, Y, X, C)."""
    width = fmaps * fmap_factor**level
    left = conv_pass(x, width, "unet_layer_%d_left" % level)
    if level == len(factors):
        return left
    factor = [1] + list(factors[level]) + [1]
    down = tf.nn.max_pool3d(left, factor, factor, "VALID")
    below = unet(down, fmaps, fmap_factor, factors, None, level + 1)
    up = upsample(below, factors[level], width, "unet_up_%d_to_%d" % (level + 1, level))
    both = tf.concat([crop(left, shape_of(up)), up], 4)
    top = max(fmaps_out, width) if fmaps_out else width
    return conv_pass(both, top, "unet_layer_%d_right" % level)


def build(x, network):
    """{head: (1, Z', Y', X', channels)}, sigmoid applied, for the settings of a network."""
    features = unet(
        x,
        network["fmaps"],
        network["fmap_factor"],
        network["downsample"],
        network.get("fmaps_out"),
    )
    names = {"lsds": network.get("lsd_layer", "embedding_0")}
    outputs = {}
    for head in network["heads"]:
        name = names.get(head["name"], head["name"] + "_0")
        outputs[head["name"]] = convolution(features, head["channels"], 1, name, tf.nn.sigmoid)
    return outputs
