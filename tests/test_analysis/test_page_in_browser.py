"""Tests of the page of a report in a real browser: what the controls, the pointer and the keyboard change.

They need Chromium and its driver; where there is none they are skipped, but fail in continuous integration (CI=true).
"""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from headless_browser import headless_chromium
from PIL import Image
from report_examples import (
    CAUSAL_NETWORK,
    MEANINGS,
    WINDOW_NETWORK,
    example_reports,
    invented_network,
    raster_layout,
)

from mmdefocus.analysis.report import write_page
from mmdefocus.analysis.report_data import NetworkReport

LAYOUT = raster_layout(6, 8, causal=True)


def equal_network(label: str) -> NetworkReport:
    return invented_network(label, LAYOUT, 'a.png', [0, 1], 2, signed=True, focus=0.2)


class Browser:
    """A headless browser with the actions of a reader of the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1200) -> None:
        metrics = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        self.driver.get(path.as_uri())
        self.wait()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        script = "return document.querySelector('main').getAttribute('aria-busy')"
        WebDriverWait(self.driver, 20, 0.02).until(lambda driver: driver.execute_script(script) == 'false')

    def find(self, selector: str, index: int = 0) -> Any:
        return self.driver.find_elements('css selector', selector)[index]

    def text(self, selector: str, index: int = 0) -> str:
        return self.run('return document.querySelectorAll(arguments[0])[arguments[1]].textContent', selector, index)

    def pixels(self) -> list[str]:
        return self.run("return [...document.querySelectorAll('.panel canvas')].map((canvas) => canvas.toDataURL())")

    def colour_at(self, panel: int, x: float, y: float) -> tuple[int, ...]:
        picture = Image.open(io.BytesIO(base64.b64decode(self.pixels()[panel].split(',')[1]))).convert('RGB')
        return picture.getpixel((int(x * picture.width), int(y * picture.height)))

    def choose(self, name: str, value: str) -> None:
        """Set a control as its user would."""
        self.run(
            """const control = document.getElementById(arguments[0]);
            control.value = arguments[1];
            for (const name of ['input', 'change']) control.dispatchEvent(new Event(name, { bubbles: true }))""",
            name,
            value,
        )
        self.wait()

    def view(self, name: str) -> None:
        self.run("document.querySelector(`#views input[value='${arguments[0]}']`).click()", name)
        self.wait()

    def point(self, panel: int, x: float, y: float, click: bool = False) -> None:
        """Move the pointer to a place between 0 and 1 of a picture."""
        from selenium.webdriver import ActionChains

        canvas = self.find('.panel canvas', panel)
        self.run("arguments[0].scrollIntoView({ block: 'center' })", canvas)
        size = canvas.size
        actions = ActionChains(self.driver, duration=0)
        actions.move_to_element_with_offset(canvas, (x - 0.5) * size['width'], (y - 0.5) * size['height'])
        (actions.click() if click else actions).perform()
        self.wait()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.wait()


@pytest.fixture(scope='module')
def browser() -> Iterator[Browser]:
    with headless_chromium() as driver:
        yield Browser(driver)


@pytest.fixture(scope='module')
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the pages: three different networks, equal networks, and two images."""
    folder = tmp_path_factory.mktemp('pages')
    equal = [equal_network(name) for name in ('first', 'second')]
    contents = {
        'different': example_reports(),
        'equal': equal,
        'images': [*example_reports('a.png'), *example_reports('b.png')[:1]],
    }
    for name, reports in contents.items():
        write_page(reports, folder / f'{name}.html', MEANINGS)
    return {name: folder / f'{name}.html' for name in contents}


@pytest.fixture
def page(browser: Browser, pages: dict[str, Path]) -> Iterator[Browser]:
    """Open the page of three networks; afterwards its console must be empty."""
    browser.open(pages['different'])
    yield browser
    assert browser.driver.get_log('browser') == []


def test_networks_are_side_by_side_and_labels_are_text(page: Browser) -> None:
    assert [page.text('.panel h3', index) for index in range(3)] == [WINDOW_NETWORK, CAUSAL_NETWORK, 'ResNet']
    tops = page.run("return [...document.querySelectorAll('.panel')].map((panel) => panel.offsetTop)")
    assert len(set(tops)) == 1
    assert page.run("return document.querySelectorAll('script').length") == 2
    assert page.text('.panel .absent', 2) == 'no attention: the layer is a convolution'
    assert page.find('.panel .absent', 2).is_displayed()
    assert not page.find('.panel .absent', 0).is_displayed()
    assert 'no receptive fields: not requested' in page.text('.panel', 2)


@pytest.mark.parametrize(
    ('name', 'value'),
    [('layer', '0'), ('head', '1'), ('head', 'signed'), ('scale', 'linear'), ('values', 'raw'), ('opacity', '40')],
)
def test_controls_change_the_pictures(page: Browser, name: str, value: str) -> None:
    before, label = page.pixels(), page.find('.panel canvas').get_attribute('aria-label')
    page.choose(name, value)
    after = page.pixels()
    assert before[0] != after[0]
    # The rows of the second network sum to 1 and are not negative.
    assert (before[1] != after[1]) == (value not in ('raw', 'signed'))
    assert name != 'layer' or page.find('.panel canvas').get_attribute('aria-label') != label


def test_views_differ_and_are_described(page: Browser) -> None:
    seen = set()
    for view in ('row', 'matrix', 'rollout', 'gradient', 'classGradient', 'fields'):
        page.view(view)
        caption, label = page.text('#caption'), page.find('.panel canvas').get_attribute('aria-label')
        assert label.startswith(f'{WINDOW_NETWORK}: ')
        seen |= {page.pixels()[0], caption, label}
    assert len(seen) == 18
    page.view('classGradient')
    assert page.find('.panel canvas', 2).is_displayed()  # the convolutional network has gradients


def test_readout_shows_the_numbers_of_the_tensors(page: Browser) -> None:
    reports = example_reports()
    page.choose('layer', '3')
    page.point(1, 3.5 / 8, 2.5 / 6, click=True)  # row 2, column 3 of the raster network
    page.point(1, 1.5 / 8, 0.5 / 6)
    row = reports[1].layers[-1].attention.abs().mean(0)[2 * 8 + 3]
    assert page.text('.readout', 1) == (
        f'Row 0, column 1 (token 1): {format_number(row[1])}, {format_number(100 * row[1] / row.sum())} % of the sum'
    )
    # The other network shows the same place of the image: its query in row 2 and column 3 of 5 x 7, in window order.
    layer = reports[0].layers[-1]
    query, token = layer.layout.token_at(2, 3), layer.layout.token_at(0, 1)
    row = layer.attention.abs().mean(0)[query]
    assert f'query at row 2, column 3 (token {query})' in page.find('.panel canvas').get_attribute('aria-label')
    share = format_number(100 * row[token] / row.sum())
    assert (
        page.text('.readout') == f'Row 0, column 1 (token {token}): {format_number(row[token])}, {share} % of the sum'
    )
    page.point(1, 7.5 / 8, 5.5 / 6)
    assert page.text('.readout', 1) == 'Row 5, column 7 (token 47): not visible to the query'


def test_readout_of_the_matrix_and_its_click(page: Browser) -> None:
    page.view('matrix')
    page.point(1, 4.5 / 49, 20.5 / 49, click=True)
    row = example_reports()[1].layers[-1].attention.abs().mean(0)[20]
    share = format_number(100 * row[4] / row.sum())
    assert page.text('.readout', 1) == f'Query 20, key 4: {format_number(row[4])}, {share} % of the sum'
    page.view('row')
    assert '(token 20)' in page.find('.panel canvas', 1).get_attribute('aria-label')
    page.view('matrix')
    page.point(1, 4.5 / 49, 48.5 / 49, click=True)  # the last row is the class token
    assert page.find('#class-token').get_attribute('aria-pressed') == 'true'


def test_keyboard_selects_a_query(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    before = page.pixels()
    page.run("document.querySelectorAll('.panel canvas')[1].focus()")
    page.press(Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert page.text('#status').startswith('Row 2, column 3 (token 19)')
    assert page.text('#status') == page.text('.readout', 1)
    page.press(Keys.ENTER)
    assert 'query at row 2, column 3 (token 19)' in page.find('.panel canvas', 1).get_attribute('aria-label')
    assert page.text('#status').startswith('New query.')
    page.press(Keys.ESCAPE)
    assert page.text('.readout', 1).startswith('Largest:')
    after = page.pixels()
    assert before[1] != after[1]


def test_class_token_is_selected_by_its_button(page: Browser) -> None:
    assert 'not visible to the query' in page.text('.panel .numbers')
    page.find('#class-token').click()
    page.wait()
    row = example_reports()[0].layers[-1].attention.abs().mean(0)[-1]
    share = format_number(100 * row[-1] / row.sum())
    assert f'Class token (query): {format_number(row[-1])}, {share} % of the sum.' in page.text('.panel .numbers')
    page.view('gradient')
    assert page.text('.absent', 2) == 'This network has no class token.'


def test_every_control_is_reached_and_named(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    page.run('document.activeElement.blur()')
    reached = []
    for _ in range(13):
        page.press(Keys.TAB)
        active = page.driver.switch_to.active_element
        assert active.accessible_name, active.get_attribute('outerHTML')
        style = page.run(
            'return getComputedStyle(arguments[0].closest("label:has(:focus)") ?? arguments[0]).outline', active
        )
        reached.append((active.tag_name, active.get_attribute('id'), style))
    names = [name for _, name, _ in reached]
    wanted = ['head', 'values', 'scale', 'layer', 'opacity', 'class-token', 'centre', 'hold', 'score']
    assert [name for name in names if name in wanted] == wanted
    assert [tag for tag, _, _ in reached].count('canvas') == 2


def test_equal_networks_have_equal_colours(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages['equal'])
    for view in ('row', 'matrix', 'gradient'):
        browser.view(view)
        first, second = browser.pixels()
        assert first == second
    assert browser.driver.get_log('browser') == []


def test_colours_are_those_of_the_scale(browser: Browser, pages: dict[str, Path]) -> None:
    from mmdefocus.analysis.report.palettes import signed, table

    browser.open(pages['equal'])
    browser.choose('opacity', '100')
    browser.choose('head', 'signed')
    browser.choose('scale', 'linear')
    browser.choose('values', 'raw')
    row = equal_network('first').layers[1].attention.mean(0)[LAYOUT.token_at(3, 4)]
    limit = float(row.abs().max())
    power = 10.0 ** (torch.tensor(limit).log10().floor() - 1)
    limit = float((limit / power).ceil() * power)  # two digits
    colours = table(signed())
    for token in (0, 9, 13, 20, 26):
        expected = colours[round(127 + 127 * float(row[token]) / limit)]
        x, y = (token % 8 + 0.5) / 8, (token // 8 + 0.5) / 6
        got = browser.colour_at(0, x, y)
        assert max(abs(int(a) - b) for a, b in zip(expected, got, strict=True)) <= 4  # one step of the table
    grey = browser.colour_at(0, 7.5 / 8, 5.5 / 6)
    assert max(grey) - min(grey) < 15  # hatched: not visible


def test_held_scale_stays(page: Browser) -> None:
    before = page.text('#ticks')
    page.find('#hold').click()
    page.choose('layer', '0')
    assert page.text('#ticks') == before
    page.find('#hold').click()
    assert page.text('#ticks') != before


def test_scores_have_curves_and_a_table(page: Browser) -> None:
    assert page.text('#meaning') == MEANINGS['entropy']
    assert page.run("return document.querySelectorAll('#curves .curve').length") == 3
    assert page.run("return document.querySelectorAll('#curves path').length") == 4 + 3  # the third has no entropy
    values = example_reports()[0].scores['entropy'][0].double()
    mean, std = format_number(values.mean()), format_number(values.std(correction=0))
    assert page.text('tbody tr') == f'25.0 %{mean} ± {std} (layer 0)' + 2 * '\N{EN DASH}'
    before = page.text('tbody')
    page.choose('score', 'sink rate')
    assert page.text('#meaning') == MEANINGS['sink rate']
    assert page.text('tbody') != before


def test_images_are_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages['images'])
    assert browser.run("return document.querySelectorAll('.panel').length") == 3
    browser.choose('image', 'b.png')
    assert browser.run("return document.querySelectorAll('.panel').length") == 1
    assert browser.find('.panel canvas').is_displayed()
    assert browser.driver.get_log('browser') == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_narrow_window_needs_no_horizontal_scrolling(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    feature = {'name': 'prefers-color-scheme', 'value': scheme}
    browser.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
    browser.open(pages['different'], width=400)
    for view in ('row', 'matrix'):
        browser.view(view)
        assert browser.run('return document.documentElement.scrollWidth') <= 400
    background = browser.run('return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)')
    assert (max(background) < 60) == (scheme == 'dark')
    tops = browser.run("return [...document.querySelectorAll('.panel')].map((panel) => panel.offsetTop)")
    assert tops == sorted(set(tops))
    assert browser.driver.get_log('browser') == []


def format_number(value: torch.Tensor) -> str:
    """Format a number as the page does: three digits."""
    number = float(value)
    text = f'{number:#.3g}' if abs(number) >= 1e-4 else f'{number:.2e}'.replace('e-0', 'e-')
    return text.rstrip('.').replace('-', '\N{MINUS SIGN}')
