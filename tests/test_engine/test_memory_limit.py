"""The memory that a training may take respects the machine and the control groups."""

import types

import psutil
import pytest
import torch

from mmdefocus.engine import memory_limit as module
from mmdefocus.engine.memory_limit import memory_limit


@pytest.fixture
def groups(tmp_path):
    """Write the files of a control group and return what they leave."""

    def write(line, folder, files, stat=''):
        (tmp_path / 'cgroup').write_text(line)
        path = tmp_path / 'mount' / folder
        path.mkdir(parents=True)
        for name, value in files.items():
            (path / name).write_text(f'{value}\n')
        (path / 'memory.stat').write_text(stat)
        return list(module._left_in_groups(str(tmp_path / 'cgroup'), str(tmp_path / 'mount')))

    return write


def test_version_2(groups):
    left = groups('0::/a/b\n', 'a', {'memory.max': 1000, 'memory.current': 300}, 'anon 5\ninactive_file 100\n')
    assert left == [800]


def test_version_1(groups):
    files = {'memory.limit_in_bytes': 1000, 'memory.usage_in_bytes': 300}
    assert groups('4:memory:/job\n3:cpu:/job\n', 'memory/job', files, 'total_inactive_file 50\n') == [750]


def test_no_limit(groups):
    assert groups('0::/\n', '', {'memory.max': 'max', 'memory.current': 300}) == []


def test_the_least_counts(monkeypatch):
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: types.SimpleNamespace(available=2000))
    monkeypatch.setattr(module, '_left_in_groups', lambda: iter([1000, 5000]))
    assert memory_limit('cpu') == 800
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert memory_limit('cpu') == 400


def test_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (10_000, 10_000))
    assert memory_limit('cuda:0') == 9000
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (5_000, 10_000))
    assert memory_limit('cuda:0') == 5000
