"""Valid toy inputs, and the check of a message against the page docs/errors.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from broken_inputs import Case, Workplace, copied
from errors_page import PAGE, as_row, read_rows, write_page


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--write-errors', action='store_true', help='write docs/errors.md anew; run without -n')


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption('write_errors', default=False) and hasattr(config, 'workerinput'):
        raise pytest.UsageError('--write-errors writes the page in one process: run without -n')


@pytest.fixture(scope='session')
def valid_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import toy_inputs  # needs OpenMMLab, and this file is read in every run of the tests

    root = tmp_path_factory.mktemp('valid') / 'inputs'
    toy_inputs.write(root)
    return root


@pytest.fixture
def place(valid_inputs, tmp_path, monkeypatch, capsys) -> Workplace:
    return Workplace(copied(valid_inputs, tmp_path / 'project'), monkeypatch, capsys)


@pytest.fixture
def check(place, request) -> Callable[[Case], None]:
    """Meet a broken input, and compare its message with what the case requires and with the page."""

    def check(case: Case) -> None:
        kind = request.module.__name__.removeprefix('test_broken_')
        message = case.attempt(place)
        row = as_row(case.what, message, place.root)
        if request.config.getoption('write_errors', default=False):
            write_page(read_rows() | {(kind, case.what): row})
        else:
            assert row == read_rows().get((kind, case.what)), (
                f'{PAGE.name} is not up to date; see the comment at its top'
            )
        came, expected, remedy = case.says.split(' | ')
        for part in (came, expected, remedy):
            assert part in message

    return check
