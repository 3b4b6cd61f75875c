"""A real Chromium without a network, and what every page of ours must do in it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """The browser; skips the test where it is not installed."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no browser: the packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        # No name resolves and no proxy helps: what the page fetched would fail and be logged.
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def assert_stands_alone(
    browser: webdriver.Chrome, page: Path, *, width: int, pictures: int
) -> None:
    """The page fetches nothing, is refused nothing, fits the screen and shows its pictures."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == [], "nothing is refused, missing or wrong"
    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    shown = browser.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(shown) == pictures
    for picture in shown:
        assert picture.size["height"] > 100
        assert picture.get_attribute("aria-label")
