"""The page docs/errors.md: a table of broken inputs and their messages per kind."""

import importlib
import sysconfig
from pathlib import Path

PAGE = Path(__file__).parents[2] / 'docs' / 'errors.md'
KINDS = ('annotations', 'images', 'folders', 'configs', 'arguments', 'arrays', 'checkpoints', 'pyramids', 'networks')
HOME = '/home/me/project'
HEAD = """<!-- Written by `pytest tests/test_broken_inputs --write-errors` from the cases of these tests. -->
# Error messages
What the tools and the inferencers say about inputs that they cannot use. A message says what came, what was expected
and what to do. The tests break a valid input in each of these ways and compare the message with this page.

- A tool prints `error:` and the message, and ends with status 2. With `MMDEFOCUS_TRACEBACK=1` in the environment it
  prints the traceback instead, for example to find a mistake in a module of your own.
- In Python, the inferencers raise the error whose name begins the message.
- An error that comes with a traceback is not about an input: please report it.

The examples are a data set of two images in `images/` with the annotations `ann.json`, folders `train/` and `val/` with
the classes `cat` and `dog`, the configs `detector.py` and `classifier.py`, and the checkpoints `detector.pth` and
`weights.pth`; the current directory is `/home/me/project`.
"""
TABLE = '| What is broken | Message |\n|---|---|\n'


def as_row(what: str, message: str, directory: Path) -> str:
    """Return the table row of a case; paths in the message become short."""
    for path, short in ((str(directory), HOME), (sysconfig.get_path('purelib'), '.venv/site-packages')):
        message = message.replace(path, short)
    lines = [line.strip() for line in message.splitlines()]
    text = '<br>'.join(f'`{line}`' for line in lines)
    return f'| {what} | {text.replace("|", chr(92) + "|")} |'


def read_rows() -> dict[tuple[str, str], str]:
    """Return the rows of the page by kind and what is broken."""
    rows = {}
    kind = ''
    for line in PAGE.read_text().splitlines():
        if line.startswith('## '):
            kind = line.removeprefix('## ').lower()
        elif line.startswith('| ') and line.endswith('` |'):
            rows[kind, line.removeprefix('| ').split(' | ')[0]] = line
    return rows


def page(rows: dict[tuple[str, str], str]) -> str:
    """Return the whole page with these rows."""
    parts = [HEAD]
    for kind in KINDS:
        module = importlib.import_module(f'test_broken_{kind}')
        listed = '\n'.join(rows[kind, case.what] for case in module.CASES if (kind, case.what) in rows)
        parts.append(f'## {kind.capitalize()}\n{module.INTRODUCTION}\n\n{TABLE}{listed}\n')
    return '\n'.join(parts)


def write_page(rows: dict[tuple[str, str], str]) -> None:
    """Write the page with these rows."""
    PAGE.write_text(page(rows))
