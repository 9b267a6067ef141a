"""What the prose of the pages names exists: links, headings, files, targets of make, and options of the tools."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from document_blocks import ROOT, Block, pages
from markdown_it import MarkdownIt
from markdown_it.token import Token
from page_session import any_path

FOLDERS = ('configs', 'docs', 'mmdefocus', 'requirements', 'tests', 'tools')
OPTIONS_OF_PIP = {'--force-reinstall', '--no-build-isolation', '--no-cache-dir', '--no-deps'}
OPTIONS_OF_SLURM = {'--kill-on-bad-exit', '--signal'}


def inline_tokens(page: str) -> Iterator[Token]:
    for token in MarkdownIt('commonmark').enable('table').parse((ROOT / page).read_text()):
        yield from token.children or ()


def code_spans(page: str) -> list[str]:
    return [' '.join(token.content.split()) for token in inline_tokens(page) if token.type == 'code_inline']


def anchors(page: Path) -> set[str]:
    """Return the anchors of all headings, as GitHub makes them."""
    tokens = MarkdownIt('commonmark').parse(page.read_text())
    titles = [
        ''.join(child.content for child in after.children or ())
        for token, after in pairwise(tokens)
        if token.type == 'heading_open'
    ]
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', pages())
def test_links_lead_to_files_and_headings(page):
    missing = []
    for token in inline_tokens(page):
        target = token.attrGet('href') if token.type == 'link_open' else token.attrGet('src')
        if not target or re.match(r'https?:|mailto:', str(target)):
            continue
        name, _, anchor = str(target).partition('#')
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize('page', pages())
def test_files_exist(page):
    words = [word.strip(',;:') for span in code_spans(page) for word in span.split()]
    paths = [word for word in words if word.split('/')[0] in FOLDERS and '/' in word]
    assert [path for path in paths if not any_path(ROOT, re.sub('…', '*', path.partition('::')[0]))] == []


@pytest.mark.parametrize('page', pages())
def test_targets_of_make_exist(page):
    targets = set(re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1].split())
    named = {
        match[1] for span in code_spans(page) for match in re.finditer(r'^(?:\w+=\S+ )*make ([a-z][a-z-]*)$', span)
    }
    assert named <= targets


def options_of_tools() -> set[str]:
    """Return the options that the tools, their package and the tests define."""
    found = {'--help', *OPTIONS_OF_PIP, *OPTIONS_OF_SLURM}
    programs = [('tools', '*.py'), ('mmdefocus/cli', '*.py'), ('tests', 'conftest.py')]
    for path in [path for folder, pattern in programs for path in (ROOT / folder).rglob(pattern)]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') in ('add_argument', 'addoption'):
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                found.update(text for text in texts if text.startswith('--'))
    return found | set(re.findall(r'--[a-z_]+', (ROOT / 'tools' / 'setup.sh').read_text()))


# CHANGELOG.md names former options, too, and docs/errors.md wrong ones, which its own test has typed.
@pytest.mark.parametrize('page', [page for page in pages() if page not in ('CHANGELOG.md', 'docs/errors.md')])
def test_options_exist(page):
    options = {
        word.partition('=')[0] for span in code_spans(page) for word in re.findall(r'(?<!\S)--[a-z][\w-]*', span)
    }
    assert options - options_of_tools() == set()


def test_the_options_of_the_converter_parse(session):
    """Parse every row of the table in docs/checkpoints.md."""
    rows = re.findall(
        r'^\| `(--[^`]+)` \| (?:converts|keeps|drops|reduces|writes)',
        (ROOT / 'docs/checkpoints.md').read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 5
    commands = [f'python tools/model_converters/official_to_mmdefocus.py a.pth b.pth {row}' for row in rows]
    session().check(Block('docs/checkpoints.md', 0, 'bash', '\n'.join(commands), {'parse': ''}))
