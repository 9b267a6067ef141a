"""The page docs/errors.md as a whole; its rows are compared in the tests of the cases."""

import importlib
from collections import Counter

from errors_page import KINDS, PAGE, page, read_rows


def cases():
    return [(kind, case.what) for kind in KINDS for case in importlib.import_module(f'test_broken_{kind}').CASES]


def test_the_page_has_every_case_once_and_nothing_else():
    assert [name for name, count in Counter(cases()).items() if count > 1] == []
    assert list(read_rows()) == cases()
    assert PAGE.read_text() == page(read_rows())


def test_there_are_at_least_a_hundred_cases():
    assert len(cases()) >= 100
