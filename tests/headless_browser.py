"""Chromium without a window, for the tests of pages.

Where there is no Chromium or driver, the tests are skipped, but fail in continuous integration (CI=true).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest


def missing(what: str) -> NoReturn:
    reason = f'{what} is not installed'
    if os.environ.get('CI') == 'true':
        pytest.fail(reason)
    pytest.skip(reason)


def find_program(*names: str) -> str:
    return next(filter(None, map(shutil.which, names)), None) or missing(' or '.join(names))


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """Start a driver that keeps the log of the console and of the network."""
    program, driver_program = find_program('chromium', 'google-chrome'), find_program('chromedriver')
    try:
        from selenium import webdriver
    except ImportError:
        missing('selenium')

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SE_OFFLINE', 'true')  # selenium looks for no driver or browser elsewhere
        patch.setenv('SE_AVOID_STATS', 'true')
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
        driver = webdriver.Chrome(options, webdriver.ChromeService(driver_program))
        try:
            yield driver
        finally:
            driver.quit()
