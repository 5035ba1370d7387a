"""Training losses, and the weights of voxels and classes that they use."""
