"""A page of results in a headless browser, as a reader uses it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from kill import PATIENCE_S

FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


class Page:
    """A page that a browser shows."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._wait = WebDriverWait(driver, PATIENCE_S)

    def console(self) -> list[Any]:
        """Errors and warnings so far."""
        return list(self.driver.get_log("browser"))

    def requests(self) -> list[str]:
        """Addresses that the page asked for so far, without those that contain their content."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["request"]["url"] for event in sent]
        return [url for url in urls if not url.startswith("data:")]

    def sorted_by(self, table: str, heading: str) -> list[float]:
        """The values of a column, in the order of the rows after a click on its heading."""
        path = f'table[aria-label="{table}"]'
        self._wait.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, f"{path}.dataTable"))
        headings = self.driver.find_elements(By.CSS_SELECTOR, f"{path} thead th")
        (column,) = (i for i, cell in enumerate(headings) if cell.text == heading)
        before = headings[column].get_attribute("aria-sort")
        headings[column].click()  # the table is sorted in a later task of the page
        self._wait.until(lambda _: headings[column].get_attribute("aria-sort") != before)
        cells = self.driver.find_elements(By.CSS_SELECTOR, f"{path} td:nth-child({column + 1})")
        return [float(cell.get_attribute("data-order") or "") for cell in cells]

    def under_mouse(self, figure: str) -> str:
        """What a plot says where the mouse is in its middle; drawn when it comes into view."""
        place = self.driver.find_element(By.CSS_SELECTOR, f"figure.{figure} .plot")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
        area = self._wait.until(lambda _: place.find_elements(By.CSS_SELECTOR, ".nsewdrag"))[0]

        def shown(_driver: Any) -> str:
            for shift in (0, 3):
                ActionChains(self.driver).move_to_element_with_offset(area, shift, shift).perform()
            return place.find_element(By.CSS_SELECTOR, ".hoverlayer").text

        return self._wait.until(shown)

    def elements(self, selector: str) -> list[Any]:
        """The elements that a selector of CSS names, once there are any."""
        return list(self._wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, selector)))

    def is_wider_than_window(self) -> bool:
        """Whether one must scroll sideways."""
        script = "return document.documentElement.scrollWidth > window.innerWidth"
        return bool(self.driver.execute_script(script))


@contextmanager
def opened(
    browser: str, path: Path, size: tuple[int, int] = (1300, 900), query: str = ""
) -> Iterator[Page]:
    """A page in a browser with a window of `size` pixels (w, h); `browser`: its program.

    `query`: what follows the address, such as `?q=word`.
    """
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    options = ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    with Chrome(options=options, service=ChromeService(shutil.which("chromedriver"))) as driver:
        driver.get(path.as_uri() + query)
        yield Page(driver)
