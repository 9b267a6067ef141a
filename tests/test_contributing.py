"""The instructions of CONTRIBUTING.md, followed as written."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'CONTRIBUTING.md').read_text()
FAMILY = ROOT / 'tests' / 'toy_family'


def code_of(section: str, language: str) -> str:
    (text,) = re.findall(rf'^## {section}\n(.*?)(?=^## |\Z)', PAGE, re.DOTALL | re.MULTILINE)
    (code,) = re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)
    return code


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory) -> Path:
    """Type the commands of "Adding a backbone family", with a work directory outside the checkout."""
    folder = tmp_path_factory.mktemp('toy')
    commands = code_of('Adding a backbone family', 'bash').replace('work_dirs/toy', str(folder))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    # The tools find mmdefocus by its installation; a work tree that is not installed names itself in PYTHONPATH.
    commands = commands.replace('PYTHONPATH=', f'PYTHONPATH={os.environ.get("PYTHONPATH", "")}:', 1)
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', commands],
        cwd=ROOT,
        env={**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / 'output').write_text(done.stdout + done.stderr)
    return folder


def test_a_family_takes_fewer_than_120_lines():
    assert sum(len(path.read_text().splitlines()) for path in FAMILY.rglob('*.py')) < 120


def test_the_toy_family_trains_for_two_steps(work_dir):
    meta = torch.load(work_dir / 'epoch_1.pth', weights_only=False)['meta']
    assert meta['iter'] == 2
    assert re.search(r'Epoch\(test\).*accuracy/top1: \d', (work_dir / 'output').read_text())


def test_the_toy_family_converts_both_ways(work_dir):
    trained = torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']
    official = torch.load(work_dir / 'official.pth', weights_only=True)['model']
    (converted,) = work_dir.glob('ours-*.pth')
    back = torch.load(converted, weights_only=True)['state_dict']
    assert set(official) & set(trained) == {'head.fc.weight', 'head.fc.bias', 'head.aux_fc.weight', 'head.aux_fc.bias'}
    assert torch.equal(official['blocks.1.mixer.rate'], trained['backbone.layers.1.mixer.rate'])
    assert back.keys() == trained.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in trained.items())


def test_the_toy_mixer_is_causal():
    # Not by importing the package, which would register the family for all tests of this process.
    mixer = runpy.run_path(str(FAMILY / 'toy_family' / 'mixer.py'))['MovingAverageMixer'](8)
    x = torch.randn(1, 9, 8, requires_grad=True)
    y = mixer(x, torch.arange(9.0), 1.0)
    (gradient,) = torch.autograd.grad(y[:, 4].sum(), x)
    reached = gradient.abs().sum((0, 2)) > 0
    assert reached.tolist() == [True] * 5 + [False] * 4


def test_the_detector_config_builds_mask_rcnn(tmp_path):
    from mmdet.registry import MODELS

    config = tmp_path / 'configs' / 'mask_rcnn' / 'toy.py'
    config.parent.mkdir(parents=True)
    (tmp_path / 'configs' / '_base_').symlink_to(ROOT / 'configs' / '_base_')
    config.write_text(code_of('Adding a detector config', 'python'))
    cfg = Config.fromfile(config)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    assert [type(part).__name__ for part in (model, model.backbone, model.neck)] == [
        'MaskRCNN',
        'DefocusMamba',
        'SimpleFeaturePyramid',
    ]
    maps = model.extract_feat(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [(96, 8, 12), (96, 4, 6), (96, 2, 3)]
    proposals, _ = model.rpn_head(maps)
    assert [tuple(x.shape[-2:]) for x in proposals] == [(8, 12), (4, 6), (2, 3)]


def test_the_analysis_gives_the_half_lives_that_the_page_names():
    names: dict = {}
    exec(code_of('Adding an analysis', 'python'), names)  # noqa: S102 (the code of our own page)
    table = names['table']
    assert table.shape == (4, 3, 16)
    torch.testing.assert_close(table[:, 0], torch.full((4, 16), 4.0))
    torch.testing.assert_close(table[:, -1], torch.full((4, 16), 4096.0))
