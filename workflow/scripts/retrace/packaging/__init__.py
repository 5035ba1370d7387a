"""Trained networks as bioimage.io packages and as one file of PyTorch."""
