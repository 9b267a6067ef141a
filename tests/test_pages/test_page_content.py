"""Tests of the content of a page: structure, escaping, determinism, and the numbers of charts."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from example_page import HOSTILE, example_charts, example_page

from mmdefocus.pages import Page, Pictures, Table, bars, lines, matrix, write_page
from mmdefocus.pages.writing import format_cell


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope='module')
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(example_page(), tmp_path_factory.mktemp('page') / 'new' / 'page.html').read_text('utf-8')


def test_equal_pages_are_equal_files(text: str, tmp_path: Path) -> None:
    assert write_page(example_page(), tmp_path / 'again.html').read_text('utf-8') == text
    assert [path.name for path in tmp_path.iterdir()] == ['again.html']


def test_texts_are_no_markup(text: str) -> None:
    assert '<script>document' not in text
    assert text.count('</script>') == 1
    assert [tag for tag, _ in Tags(text).found].count('script') == 1


def test_headings_are_in_order_and_listed(text: str) -> None:
    tags = Tags(text).found
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch('h[1-6]', tag)]
    assert levels == [1, 2, 2, 2, 2, 2, 2]
    anchors = [attributes['id'] for tag, attributes in tags if tag == 'h2']
    assert len(set(anchors)) == 6
    assert [a['href'] for tag, a in tags if tag == 'a'] == ['#content', *(f'#{anchor}' for anchor in anchors)]


def test_nothing_is_loaded_and_ids_are_distinct(text: str) -> None:
    tags = Tags(text).found
    policy = next(a['content'] for tag, a in tags if a.get('http-equiv') == 'Content-Security-Policy')
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert 'unsafe' not in policy
    sources = [value for _, a in tags for name, value in a.items() if name in ('src', 'href', 'xlink:href') and value]
    assert sources
    assert all(source.startswith(('#', 'data:image/')) for source in sources)
    assert not any('style' in a for _, a in tags)
    ids = [a['id'] for _, a in tags if 'id' in a]
    assert len(ids) == len(set(ids))


def test_pictures_and_charts_are_described(text: str) -> None:
    tags = Tags(text).found
    assert [a['alt'] for tag, a in tags if tag == 'img'] == [f'noise {HOSTILE}', 'more noise', '']
    labels = [a['aria-label'] for tag, a in tags if a.get('role') == 'img']
    assert len(labels) == 4
    assert labels[0] is not None
    assert 'loss: first 3, last 0.15, smallest 0.15, largest 3' in labels[0]
    assert '1 values are not finite' in labels[0]
    assert 'absent.png cannot be read: ' in text


def test_charts_have_their_numbers_and_differ_without_colour() -> None:
    line, point, bar, cells = example_charts(list(range(1, 21)))
    assert line.numbers is not None
    assert line.numbers.rows[0] == ['loss', 1, 3]
    assert line.numbers.rows[20] == [HOSTILE, 1, None]
    assert bar.numbers is not None
    assert list(bar.numbers.rows) == [['cat', 3.0, 1.0], [HOSTILE, 1.0, None]]
    assert cells.numbers is not None
    assert cells.numbers.rows[0] == ['cat', 5, 1, 0]
    assert 'dog and cat: 2' in cells.description
    assert 'stroke-dasharray' in line.svg
    assert len(set(re.findall(r'<use [^>]*href="#([^"]+)"', point.svg))) >= 2
    assert '<pattern' in bar.svg
    for chart in (line, point, bar, cells):
        assert 'style=' not in chart.svg
        assert 'currentColor' in chart.svg
        assert '<text' in chart.svg


def test_many_points_and_classes_stay_small() -> None:
    xs = list(range(5000))
    chart = lines({'loss': (xs, [math.sin(x) for x in xs])}, 'step', 'loss')
    assert chart.numbers is not None
    assert len(chart.numbers.rows) <= 102
    assert chart.numbers.caption == 'Every 50th and the last of 5000 points'
    names = [f'class {number}' for number in range(90)]
    large = matrix(np.ones((90, 90), int), names, names)
    assert large.numbers is not None
    assert len(large.numbers.rows) == 100
    assert len(large.svg) < 300_000


def test_cells() -> None:
    values = (None, math.nan, True, 1234567, -3, 0.5, 2.0, 1 / 3, 1e-7, 'text')
    dash, minus = '\N{EN DASH}', '\N{MINUS SIGN}'
    large = '1\u202f234\u202f567'
    shown = (dash, dash, 'yes', large, f'{minus}3', '0.500', '2', '0.333', f'1.00e{minus}07', 'text')
    assert [format_cell(value) for value in values] == list(shown)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match='expected 2 cells in row 1 of a table, got 1'):
        Table(['a', 'b'], [[1, 2], [3]])
    with pytest.raises(ValueError, match=r"numeric names \['c'\]"):
        Table(['a'], [], numeric=['c'])
    with pytest.raises(ValueError, match='uint8'):
        Pictures([(np.zeros((2, 2, 3)), 'x')])
    with pytest.raises(ValueError, match='columns of pictures'):
        Pictures(columns=9)
    with pytest.raises(ValueError, match='at least one series'):
        lines({})
    with pytest.raises(ValueError, match='as many x as y'):
        lines({'a': ([1], [1, 2])})
    with pytest.raises(ValueError, match='at least one bar'):
        bars({})
    with pytest.raises(ValueError, match='2 rows and 1 columns'):
        matrix([[1]], ['a', 'b'], ['c'])
    with pytest.raises(ValueError, match='finite and not negative'):
        matrix([[-1]], ['a'], ['b'])


def test_a_failed_writing_keeps_the_former_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_page(Page('first'), tmp_path / 'page.html')

    def fail(*_: object, **__: object) -> None:
        raise OSError('No space left on device')

    monkeypatch.setattr(Path, 'write_text', fail)
    with pytest.raises(OSError, match='No space left'):
        write_page(Page('second'), path)
    assert '<h1>first</h1>' in path.read_bytes().decode()
