"""Screenshots of neuroglancer, taken by a headless Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrace.errors import RetraceError

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
"""Longest wait for a screenshot."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class BrowserError(RetraceError):
    """No browser is installed, or it took no screenshot."""


def find_browser() -> str:
    """Path of the browser; BrowserError if it or its driver is not installed."""
    programs = [path for name in BROWSERS if (path := shutil.which(name))]
    if not programs or not shutil.which("chromedriver"):
        raise BrowserError("no Chromium with chromedriver on this machine")
    return programs[0]


@contextmanager
def headless_browser(viewer: Any, size: tuple[int, int]) -> Iterator[Any]:
    """A browser of `size` pixels (w, h) that shows the viewer; its profile is temporary.

    BrowserError if it does not start.
    """
    from neuroglancer.webdriver import Webdriver
    from selenium.common.exceptions import WebDriverException

    # Otherwise selenium looks for a driver on the internet.
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


def screenshot(viewer: Any, size: tuple[int, int]) -> bytes:
    """A PNG of the viewer of `size` pixels (w, h), once everything visible has loaded.

    BrowserError without a browser, or when it sends no picture within `TIMEOUT_S`.
    """
    replies: list[Any] = []
    # viewer.screenshot never returns if the browser dies; a daemon thread can be abandoned.
    request = threading.Thread(
        target=lambda: replies.append(viewer.screenshot(size=list(size))), daemon=True
    )
    with headless_browser(viewer, size):
        request.start()
        request.join(TIMEOUT_S)
    if not replies:
        raise BrowserError(f"the browser sent no picture within {TIMEOUT_S:.0f} s")
    return bytes(replies[0].screenshot.image)
