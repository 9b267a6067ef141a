"""Tests of the page of a data check, in a real headless browser where there is one."""

import copy
import html
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from mmdefocus.apis.data_page import write_data_page
from mmdefocus.apis.drawn_examples import draw_example
from mmdefocus.datasets.inspection import Example, inspect_data
from mmdefocus.datasets.prepared import read_data
from mmdefocus.datasets.prepared.source_data import SourceData


def missing(what: str) -> NoReturn:
    reason = f'{what} is not installed'
    if os.environ.get('CI') == 'true':
        pytest.fail(reason)
    pytest.skip(reason)


def find_program(*names: str) -> str:
    return next(filter(None, map(shutil.which, names)), None) or missing(' or '.join(names))


@pytest.fixture(scope='module')
def broken(digits_coco: Path) -> SourceData:
    """Return the digits with boxes beyond the image and a category with markup in its name."""
    source = read_data(digits_coco)
    train = source.splits['train']
    content = copy.deepcopy(train.content)
    content['annotations'][0]['bbox'] = [-20, 10, 60, 40]
    content['annotations'][1]['bbox'] = [500, 10, 60, 40]
    content['annotations'][2]['bbox'] = [1, 2, float('nan'), 4]
    content['categories'].append(dict(id=99, name='<script>alert(1)</script>'))
    content['images'][0]['width'] = 170
    return replace(source, splits=dict(source.splits) | dict(train=replace(train, content=content)))


@pytest.fixture(scope='module')
def page(broken: SourceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('page') / 'index.html'
    return write_data_page(inspect_data(broken), broken, path)


def test_page_is_one_small_offline_file(page: Path) -> None:
    text = page.read_text('utf-8')
    assert page.stat().st_size < 1_000_000
    assert "default-src 'none'" in html.unescape(text)
    assert 'src="http' not in text
    assert '<script>alert(1)' not in text
    assert '--repair clip' in text
    assert 'data:image/jpeg' in text


def test_examples_are_drawn(digits_coco: Path) -> None:
    image = str(digits_coco / 'train/000000.jpg')
    plain = draw_example(Example(image), [])
    assert plain is not None
    assert plain.shape == (160, 160, 3)
    drawn = draw_example(Example(image, (20, 30, 40, 50)), [(100, 100, 20, 20)])
    assert drawn is not None
    assert np.abs(drawn[30:80, 20].astype(int) - (213, 94, 0)).max() < 3
    assert np.abs(drawn[100:120, 100].astype(int) - (86, 180, 233)).max() < 3
    assert (drawn[:20] == plain[:20]).all()
    beyond = draw_example(Example(image, (-40, 10, 60, 40)), [])
    assert beyond is not None
    assert beyond.shape == (160, 200, 3)
    assert (beyond[100, :40] == 128).all()
    assert draw_example(Example(str(digits_coco / 'none.jpg')), []) is None
    assert draw_example(Example(''), []) is None


@pytest.fixture(scope='module')
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip('selenium.webdriver')
    options = webdriver.ChromeOptions()
    options.binary_location = find_program('chromium', 'chromium-browser', 'google-chrome')
    for flag in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    browser = webdriver.Chrome(options, webdriver.ChromeService(find_program('chromedriver')))
    yield browser
    browser.quit()


@pytest.mark.parametrize('width', [360, 1280])
def test_page_in_a_browser(driver: Any, page: Path, width: int) -> None:
    metrics = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    driver.get(page.as_uri())
    assert driver.execute_script('return document.documentElement.scrollWidth') <= width
    headings = driver.execute_script("return [...document.querySelectorAll('h2')].map((one) => one.textContent)")
    assert headings[0] == 'Summary'
    assert 'Error: Boxes outside their image (train)' in headings
    assert 'Warning: Boxes that reach beyond their image (train)' in headings
    assert headings[-2:] == ['Classes', 'Sizes']
    shown = driver.execute_script(
        "return [...document.querySelectorAll('main img')].map((one) => one.naturalWidth > 0 && one.alt)"
    )
    assert shown
    assert all(shown)
    assert driver.get_log('browser') == []
    messages = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
    requests = [one['params']['request']['url'] for one in messages if one['method'] == 'Network.requestWillBeSent']
    assert not [url for url in requests if not url.startswith(('file:', 'data:'))]


def test_keyboard_reaches_everything(driver: Any, page: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver.get(page.as_uri())
    targets = "a[href], button, summary, input, select, [tabindex='0']"
    total = driver.execute_script(
        f'return [...document.querySelectorAll("{targets}")].filter(one => one.checkVisibility()).length'
    )
    reached = set()
    for _ in range(total + 5):
        ActionChains(driver, duration=0).send_keys(Keys.TAB).perform()
        active = driver.switch_to.active_element
        if active.tag_name != 'body':
            assert active.accessible_name, active.get_attribute('outerHTML')
            reached.add(active.id)
    assert len(reached) >= total > 20
