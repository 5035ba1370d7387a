"""Print how pip reaches its packages on this machine, for a build inside an image.

pip inside an image sees the host's environment but not the host's files. Each setting that says
where packages and certificates come from is printed as `env NAME=VALUE`, and each local file or
folder that such a setting names as `bind PATH`. On a machine with no such settings: nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

SETTINGS = {"index-url", "extra-index-url", "find-links", "cert", "trusted-host", "proxy"}
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def pip_settings() -> dict[str, str]:
    """Return pip's own settings by option name; the environment wins over files, as in pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    from_files: dict[str, str] = {}
    from_environment: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, quoted = line.partition("=")
        section, _, option = key.rpartition(".")
        if option in SETTINGS and section in {":env:", "global", "install"}:
            target = from_environment if section == ":env:" else from_files
            target[option] = " ".join(shlex.split(quoted.replace("\\n", " ")))
    return from_files | from_environment


def local_paths(value: str) -> Iterator[Path]:
    """Yield the existing local files and folders that a setting's value names."""
    for word in value.split():
        url = urlparse(word)
        path = Path(unquote(url.path)) if url.scheme == "file" else Path(word)
        if url.scheme in {"", "file"} and path.is_absolute() and path.exists():
            # The pages of a local index link to files in a sibling folder.
            yield path.parent if path.name == "simple" else path


def main() -> None:
    """Print the settings, then every path they name, once."""
    settings = {
        "PIP_" + option.upper().replace("-", "_"): value for option, value in pip_settings().items()
    }
    settings |= {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    for name, value in settings.items():
        print(f"env {name}={value}")
    paths = {path for value in settings.values() for path in local_paths(value)}
    for path in sorted(path for path in paths if paths.isdisjoint(path.parents)):
        print(f"bind {path}")


if __name__ == "__main__":
    main()
