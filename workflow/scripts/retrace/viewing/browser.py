"""A viewer's picture from a headless Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace.errors import RetraceError
from retrace.files import atomic_write

FLAGS = (
    "--no-sandbox",  # Chromium refuses to start as root otherwise
    "--disable-dev-shm-usage",  # /dev/shm is tiny in containers
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-default-apps",
    "--disable-domain-reliability",
)
TIMEOUT_S = 180.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class BrowserError(RetraceError):
    """No picture could be had from a browser."""


def find_browser() -> str:
    """The browser's program; BrowserError where it or its driver is not installed."""
    programs = [path for name in BROWSERS if (path := shutil.which(name))]
    if not programs or not shutil.which("chromedriver"):
        raise BrowserError("no Chromium with chromedriver on this machine")
    return programs[0]


@contextmanager
def browsing(viewer: Any, size: tuple[int, int]) -> Iterator[Any]:
    """A headless browser that shows the viewer; its profile is thrown away at the end."""
    from neuroglancer.webdriver import Webdriver
    from selenium.common.exceptions import WebDriverException

    # selenium would look for a driver on the net otherwise
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    program = find_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"]
        try:
            driver = Webdriver(
                viewer,
                headless=True,
                browser_binary_path=program,
                print_logs=False,
                extra_command_line_args=flags,
            )
        except (WebDriverException, OSError) as error:
            raise BrowserError(f"{program} does not start: {str(error).splitlines()[0]}") from error
        with driver:
            yield driver


def screenshot(viewer: Any, path: Path, size: tuple[int, int]) -> None:
    """Writes the viewer as a PNG of `size` pixels (w, h) once all that is visible has loaded.

    Raises BrowserError without a browser, or when it does not answer in `TIMEOUT_S`.
    """
    replies: list[Any] = []
    # viewer.screenshot waits for ever if the browser dies, a daemon thread does not hold us up
    asking = threading.Thread(
        target=lambda: replies.append(viewer.screenshot(size=list(size))), daemon=True
    )
    with browsing(viewer, size):
        asking.start()
        asking.join(TIMEOUT_S)
    if not replies:
        raise BrowserError(f"the browser sent no picture within {TIMEOUT_S:.0f} s")
    atomic_write(path, replies[0].screenshot.image)
