"""Repetition of the fuzz targets for the time in ``FUZZ_SECONDS``, see fuzzing.py."""

import os
import time

import fuzzing
import pytest
from hypothesis import is_hypothesis_test


def pytest_collection_modifyitems(config, items):
    config.fuzz_targets = sum(is_hypothesis_test(getattr(item, 'obj', None)) for item in items)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a target again and again until its share of the time is over."""
    if not fuzzing.SECONDS or not is_hypothesis_test(pyfuncitem.obj):
        return None
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    end = time.monotonic() + fuzzing.SECONDS * workers / pyfuncitem.config.fuzz_targets
    before = fuzzing.examples
    while time.monotonic() < end:
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    pyfuncitem.user_properties.append(('examples', fuzzing.examples - before))
    return True


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports('passed'):
        for name, value in report.user_properties:
            if name == 'examples' and report.when == 'call':
                terminalreporter.write_line(f'{report.nodeid}: {value} examples')
