"""The library of the retrace workflow: connectomics experiments from the bucket to scores."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError(
        "retrace runs on Linux and macOS: it locks files and replaces open ones as these systems "
        "do. On Windows, use it inside WSL (wsl --install)"
    )
