"""Tests of the page of a report as a file: self-contained, valid, and safe against text of the reports."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from report_examples import CAUSAL_NETWORK, MEANINGS, example_reports, invented_network, raster_layout

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.report import write_page

VOID = {'meta', 'input', 'br', 'img', 'link', 'hr'}


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f'<{tag}> repeats an attribute'
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.contents.setdefault(self.open[-1], []).append(data)


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp('page') / 'page.html'
    write_page(example_reports(), path, MEANINGS, title='Maps <b>&amp;')
    return Page(path.read_text('utf-8'))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {'link', 'img', 'iframe', 'object', 'embed', 'base'}
        assert not {'src', 'href', 'style', 'srcset', 'action'} & attributes.keys()
        assert not any(name.startswith('on') for name in attributes)
    style = ''.join(page.contents['style'])
    assert 'url(' not in style
    assert '@import' not in style
    script = ''.join(page.contents['script'])
    addresses = re.findall(r'\w+://[^\'"]+', script)
    assert set(addresses) == {'http://www.w3.org/2000/svg'}  # a name of a vocabulary
    for unsafe in ('innerHTML', 'outerHTML', 'insertAdjacentHTML', 'document.write', 'eval(', 'fetch(', 'import('):
        assert unsafe not in script


def test_policy_allows_this_script_and_style_alone(page: Page) -> None:
    policies = [attributes['content'] for tag, attributes in page.elements if attributes.get('http-equiv')]
    rules = dict(rule.split(' ', 1) for rule in policies[0].split('; '))
    assert rules.keys() == {'default-src', 'style-src', 'script-src', 'base-uri'}
    assert rules['default-src'] == rules['base-uri'] == "'none'"
    for name, content in (('style-src', page.contents['style'][0]), ('script-src', page.contents['script'][-1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_names_of_elements_are_unique_and_controls_have_labels(page: Page) -> None:
    names = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in page.elements:
        for reference in ('for', 'aria-labelledby'):
            assert attributes.get(reference, names[0]) in names
        assert tag != 'html' or attributes['lang'] == 'en'


def test_text_of_reports_is_no_markup(page: Page) -> None:
    assert page.contents['h1'] == page.contents['title'] == ['Maps <b>&amp;']
    scripts = [attributes for tag, attributes in page.elements if tag == 'script']
    assert len(scripts) == 2
    data = json.loads(page.contents['script'][0])
    assert CAUSAL_NETWORK in data['labels']
    assert '<' not in page.contents['script'][0]


def test_every_text_of_a_report_survives(tmp_path: Path) -> None:
    odd = '</script><!-- "\' & \\ \u2028 Blüte $data ${title}'
    report = invented_network(odd, raster_layout(3, 3, causal=True), odd, [0], 1)
    report.description, report.notes, report.predicted = odd, [odd], odd
    report.scores = {odd: [torch.zeros(3)]}
    write_page([report], tmp_path / 'page.html', {odd: odd})
    data = json.loads(Page((tmp_path / 'page.html').read_text('utf-8')).contents['script'][0])
    entry = data['reports'][0]
    assert {entry['label'], entry['description'], entry['image'], entry['predicted'], *entry['notes']} == {odd}
    assert data['meanings'] == {odd: odd}


def test_bad_reports_leave_no_file(tmp_path: Path) -> None:
    reports = example_reports()
    reports[1].layers[0].rollout[0, 0] = torch.nan
    for bad in (reports, []):
        with pytest.raises(AnalysisError):
            write_page(bad, tmp_path / 'page.html')
    assert not list(tmp_path.iterdir())
