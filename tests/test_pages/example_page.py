"""A page with every kind of part, and with texts that would break a careless page."""

import math
from pathlib import Path

import numpy as np

from mmdefocus.pages import Chart, Code, Page, Pictures, Table, Text, bars, lines, matrix, points

HOSTILE = '</script><script>document.title = "hacked"</script>$x$'


def example_page() -> Page:
    epochs = list(range(1, 21))
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    page = Page(f'Report of {HOSTILE}', 'subtitle & more')
    page.add('Summary', 'First.\n\nSecond.', Text('good', 'good'), Text('warning', 'warning'), Text(HOSTILE, 'error'))
    page.add('Curves', *example_charts(epochs), note='A note')
    page.add(
        'Table',
        Table(
            ['class', 'AP', 'objects', 'a long heading', 'another long heading', 'and one more heading', 'last'],
            [['ten', 0.5, 10, 1, 1, 1, 1], [HOSTILE, None, 2, 1, 1, 1, 1], ['one', 0.25, 1234567, 1, 1, 1, 1]],
            'A caption',
        ),
    )
    page.add('Pictures', Pictures([(noise, f'noise {HOSTILE}'), (noise, 'more noise'), (Path('absent.png'), 'absent')]))
    page.add('Command', Code('mmdefocus train ' + 80 * 'x'))
    page.add('Curves', Text('A second section with this heading.'))
    return page


def example_charts(epochs: list[int]) -> list[Chart]:
    classes = ['cat', 'dog', HOSTILE]
    return [
        lines(
            {'loss': (epochs, [3 / x for x in epochs]), HOSTILE: (epochs, [math.nan] + [1 / x for x in epochs[1:]])},
            'epoch',
            'loss',
            title='Loss',
        ),
        points({'eager': ([10.0], [0.8]), 'compiled': ([6.0], [0.8])}, 'ms', 'AP', title='Accuracy and latency'),
        bars({'train': {'cat': 3.0, HOSTILE: 1.0}, 'val': {'cat': 1.0}}, 'objects', 'class', title='Classes'),
        matrix([[5, 1, 0], [2, 7, 0], [0, 0, 3]], classes, classes, 'predicted', 'true', title='Confusion'),
    ]
