"""Trained networks packed to run without retrace: bioimage.io models, and one file of PyTorch."""
