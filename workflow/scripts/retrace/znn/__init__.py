"""ZNN's own files (.znn, .cfg, .spec) and its networks as graphs: plain data, no torch."""
