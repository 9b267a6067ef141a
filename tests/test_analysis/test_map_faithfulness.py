"""Faithfulness of maps, as tools/analysis/over_focus.py measures it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmdefocus.analysis import insertion_deletion
from mmdefocus.analysis.saliency import saliency_maps
from mmdefocus.apis.analysis_models import load_network
from mmdefocus.apis.analysis_words import parse_model

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis' / 'over_focus.py'
CLASSIFIER = ROOT / 'configs' / 'classification' / 'defocus_retnet_nano_digits.py'
DETECTOR = ROOT / 'configs' / 'dino' / 'defocus_mamba_nano_digits.py'


@pytest.fixture
def run(monkeypatch, tmp_path):
    Image.radial_gradient('L').resize((32, 32)).save(tmp_path / 'ring.png')
    Image.linear_gradient('L').resize((32, 32)).save(tmp_path / 'ramp.png')
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, words)])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


def test_areas_are_those_of_the_curves(run, capsys):
    words = [f'RetNet={CLASSIFIER}', f'DINO={DETECTOR}', 'R18=timm:test_resnet', 'ring.png', 'ramp.png']
    run(*words, '--size', '32', '--random-weights', '--layers', '-1', '--faithfulness', '4', '--out', 'out')
    found = json.loads(Path('out', 'faithfulness.json').read_text())
    assert {label: list(entry['areas']) for label, entry in found.items()} == {
        'RetNet': ['class gradient', 'attention', 'rollout'],
        'DINO': [],
        'R18': ['class gradient'],
    }
    network = load_network(parse_model(str(CLASSIFIER)), random_weights=True, size=32)
    expected = []
    for name in ('ring.png', 'ramp.png'):
        inputs = network.prepare(name).inputs
        maps, _ = saliency_maps(network.network, inputs)
        curves = insertion_deletion(network.network, inputs, maps['rollout'], steps=4, baseline='mean')
        expected.append(curves.area(curves.deletion))
    torch.testing.assert_close(torch.tensor(found['RetNet']['areas']['rollout']['deletion']), torch.cat(expected))

    table = Path('out', 'scores.md').read_text().partition('## Faithfulness of the maps of RetNet\n')[2]
    row = next(line for line in table.splitlines() if line.startswith('| rollout |'))
    assert float(row.split('|')[4]) == pytest.approx(torch.cat(expected).mean().item(), abs=0.0005)
    printed = capsys.readouterr().out
    assert row in printed
    assert 'no faithfulness:' in printed  # a detector has no class logits
    assert 'has no class token' in printed
    assert {path.name for path in Path('out').glob('*_band-pass.png')} == {'RetNet_band-pass.png', 'DINO_band-pass.png'}


def test_steps_that_cannot_be(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run(CLASSIFIER, 'ring.png', '--random-weights', '--faithfulness', '0', '--out', 'out')
    assert stop.value.code == 2
    assert '--faithfulness needs a number of steps from 1, got 0; try 16' in capsys.readouterr().err
    assert not Path('out').exists()
