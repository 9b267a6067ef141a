"""Every code block of every Markdown page, run as it is written; CONTRIBUTING.md explains how."""

import pytest
from document_blocks import PageError, pages, read_blocks
from page_session import BlockError


@pytest.mark.parametrize('page', pages())
def test_the_blocks_of_a_page_run(page, session):
    failure = None
    try:
        blocks = read_blocks(page)
        run = session() if blocks else None
        for block in blocks:
            run.check(block)
    except (PageError, BlockError) as error:
        failure = str(error)  # without the traceback, which says nothing about the page
    if failure:
        pytest.fail(failure, pytrace=False)
