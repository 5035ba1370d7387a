"""Networks, built from a network's configuration."""

from retrace.networks.unet import UNet, build_network, centre_crop

__all__ = ["UNet", "build_network", "centre_crop"]
