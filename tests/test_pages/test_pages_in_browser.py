"""Tests of a page in a real browser: no request, no sideways scrolling, keyboard, sorting, pictures, contrast."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_page import HOSTILE, example_page
from headless_browser import headless_chromium
from page_checks import check_page, open_page

from mmdefocus.pages import write_page


@pytest.fixture(scope='module')
def driver() -> Iterator[Any]:
    with headless_chromium() as driver:
        yield driver


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(example_page(), tmp_path_factory.mktemp('page') / 'page.html')


@pytest.fixture
def page(driver: Any, path: Path) -> Iterator[Any]:
    """Open the page; afterwards its console must be empty."""
    open_page(driver, path)
    yield driver
    assert driver.get_log('browser') == []


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver, duration=0).send_keys(*keys).perform()


def first_column(driver: Any) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelector('section:nth-of-type(3) tbody').rows].map((row) => row.cells[0].textContent)"
    )


def test_page_needs_nothing_and_is_readable(driver: Any, path: Path) -> None:
    check_page(driver, path)


def test_texts_are_shown_as_they_are(page: Any) -> None:
    assert page.title == f'Report of {HOSTILE}'
    assert page.execute_script("return document.querySelectorAll('script').length") == 1
    assert HOSTILE in page.find_element('css selector', 'h1').text


def test_columns_are_sorted_by_mouse_and_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    name, ap, objects = page.find_elements('css selector', 'section:nth-of-type(3) thead button')[:3]
    ap.click()
    assert first_column(page) == ['one', 'ten', HOSTILE]
    ap.click()
    assert first_column(page) == ['ten', 'one', HOSTILE]  # the missing number stays at the end
    page.execute_script('arguments[0].focus()', objects)
    press(page, Keys.ENTER)
    assert first_column(page) == [HOSTILE, 'ten', 'one']
    heads = page.find_elements('css selector', 'section:nth-of-type(3) thead th')[:3]
    assert [head.get_attribute('aria-sort') for head in heads] == [None, None, 'ascending']
    name.click()
    assert first_column(page)[1:] == ['one', 'ten']


def test_a_picture_opens_and_closes(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    dialog = page.find_element('css selector', 'dialog')
    page.execute_script("document.querySelectorAll('button.enlarge')[1].focus()")
    press(page, Keys.ENTER)
    assert dialog.is_displayed()
    assert dialog.find_element('css selector', 'figcaption').text == 'more noise'
    press(page, Keys.ESCAPE)
    assert not dialog.is_displayed()
    page.find_elements('css selector', 'button.enlarge')[0].click()
    dialog.find_element('css selector', 'button').click()
    assert not dialog.is_displayed()


def test_tab_reaches_everything_and_the_focus_is_visible(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script('document.activeElement.blur()')
    reached = set()
    for _ in range(40):
        press(page, Keys.TAB)
        active = page.switch_to.active_element
        reached.add(active.tag_name + ('.' + active.get_attribute('class') if active.get_attribute('class') else ''))
        outline = page.execute_script('return getComputedStyle(arguments[0]).outlineStyle', active)
        assert outline == 'solid' or active.tag_name == 'body', active.get_attribute('outerHTML')[:200]
        assert active.accessible_name or active.tag_name in ('body', 'pre'), active.get_attribute('outerHTML')[:200]
    assert {'a.skip', 'a', 'div.scroll', 'summary', 'button', 'button.enlarge', 'pre'} <= reached


def test_numbers_of_a_chart_open(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    details = page.find_element('css selector', 'details')
    table = details.find_element('css selector', 'table')
    assert not table.is_displayed()
    page.execute_script('arguments[0].focus()', details.find_element('css selector', 'summary'))
    press(page, Keys.ENTER)
    assert table.is_displayed()
