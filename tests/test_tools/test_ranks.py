"""Random numbers of the processes of a distributed training."""

import json
import os
import socket
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from commands import TOOLS, run
from PIL import Image

HERE = Path(__file__).parent


@pytest.fixture(scope='module')
def records(tmp_path_factory) -> list[list[dict]]:
    """Of both processes: their iterations of two epochs over twelve images."""
    root = tmp_path_factory.mktemp('ranks')
    for split in ('train', 'val'):
        for name in ('bright', 'dark'):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(root / split / name / f'{number}.png')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    paths = {'PATH': Path(sys.executable).parent, 'PYTHONPATH': HERE}
    extended = [f'{name}={first}:{os.environ.get(name, "")}' for name, first in paths.items()]
    command = ['bash', TOOLS / 'dist_train.sh', HERE / 'toy_ranks.py', '2', '--work-dir', 'work']
    run(root, 'env', f'PORT={port}', *extended, *command, '--cfg-options', f'data_root={root}')
    return [json.loads((root / 'work' / f'rank_{rank}.json').read_text()) for rank in range(2)]


def images(record: list[dict], epoch: int) -> list[str]:
    return [*chain.from_iterable(iteration['images'] for iteration in record if iteration['epoch'] == epoch)]


@pytest.mark.parametrize('epoch', [0, 1])
def test_processes_share_the_order_of_the_images(records, epoch):
    seen = images(records[0], epoch) + images(records[1], epoch)
    assert sorted(seen) == [f'{name}/{number}.png' for name in ('bright', 'dark') for number in range(6)]


def test_each_epoch_has_its_own_order(records):
    assert images(records[0], 0) != images(records[0], 1)


@pytest.mark.parametrize('kind', ['drop_path', 'mixup'])
def test_every_process_and_epoch_draws_its_own_numbers(records, kind):
    numbers = [iteration[kind] for record in records for iteration in record]
    assert len(numbers) == 8
    assert len(set(numbers)) == len(numbers)
