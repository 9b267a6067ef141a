"""The memory of the models of the zoo is measured in processes of their own."""

import re

from commands import tool


def test_peak_of_a_process(tmp_path):
    words = ['--task', 'classification', '--models', 'fcvit_nano', '--inference-only']
    printed = tool(tmp_path, 'measure_zoo.py', *words)
    found = re.search(r"\('classification', 'fcvit_nano'\): \((\d+), None\),", printed)
    assert 300 < int(found[1]) < 3000, 'MiB, most of it for the packages'
