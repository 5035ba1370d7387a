"""ZNN's own files (.znn, .cfg, .spec) and its networks as graphs, without torch."""
