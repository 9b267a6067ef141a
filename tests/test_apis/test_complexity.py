"""Parameters and FLOPs of whole networks, and the tool that prints them."""

import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdefocus.apis.complexity import count_complexity

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
DIGITS = {task: CONFIGS / task / 'defocus_mamba_nano_digits.py' for task in ('classification', 'dino')}


def test_classifier_counts_as_by_hand():
    found = count_complexity(Config.fromfile(CONFIGS / 'classification' / 'defocus_mamba_base.py'))
    tokens, layers, width, inner, state, rank = 14 * 14 + 1, 24, 768, 1536, 16, 48
    projections = width * 2 * inner + inner * (rank + 2 * state) + rank * inner + inner * width
    scan = tokens * layers * inner * (7 * state + 1) // 2
    convolutions = tokens * layers * inner * 4 + (tokens - 1) * 16 * 16 * 3 * width
    assert found.shape == (224, 224)
    assert found.parameters == 92_650_832
    assert found.scan_multiply_adds == scan
    assert found.multiply_adds == tokens * layers * projections + scan + convolutions + width * 1000


def test_detector_counts_as_with_real_tensors():
    """mmdet's own way: the detector traced on an image."""
    from mmdet.structures import DetDataSample

    cfg, shape = Config.fromfile(DIGITS['dino']), (64, 96)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape))
    forward = model.forward
    model.forward = lambda images: forward(images, [sample], mode='tensor')
    by_operator = FlopAnalyzer(model, torch.zeros(1, 3, *shape)).unsupported_ops_warnings(False).by_operator()
    # torch's counter ignores elementwise operations and interpolation.
    for name in ('layer_norm', 'group_norm', 'grid_sampler'):
        del by_operator[name]
    found = count_complexity(cfg, shape)
    assert found.multiply_adds == sum(by_operator.values())
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert 0 < found.scan_multiply_adds < found.multiply_adds


def test_scan_that_no_counter_sees(monkeypatch):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    with pytest.raises(RuntimeError, match=r'cannot be counted: build .*"make setup".* unset MMDEFOCUS_BACKEND'):
        count_complexity(Config.fromfile(DIGITS['classification']))


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, arguments)])
    runpy.run_path(str(ROOT / 'tools' / 'get_flops.py'), run_name='__main__')


@pytest.mark.parametrize(
    ('task', 'shape', 'image'),
    [('classification', [], '32 x 32'), ('classification', ['64'], '64 x 64'), ('dino', ['64', '96'], '64 x 96')],
)
def test_tool(task, shape, image, monkeypatch, capsys):
    run_tool(monkeypatch, DIGITS[task], *(['--shape', *shape] if shape else []))
    found = count_complexity(Config.fromfile(DIGITS[task]), tuple(int(side) for side in image.split(' x ')))
    printed = capsys.readouterr().out
    assert f'image: {image}\nparameters: {found.parameters:,}\nFLOPs: {found.multiply_adds / 1e9:.3f} G' in printed
    assert f'scans: {found.scan_multiply_adds / found.multiply_adds:.1%} of the FLOPs\n' in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.py'], "error: config file 'none.py' does not exist"),
        ([DIGITS['dino'], '--shape', '1', '2', '3'], '--shape takes a side, or a height and a width, in pixels; got 1'),
        ([DIGITS['dino'], '--shape', '0'], 'in pixels; got 0'),
        # Its number of classes is that of the data.
        (
            [CONFIGS / 'classification' / 'defocus_mamba_base_finetune.py'],
            "error: image folder 'data/images/train' does",
        ),
    ],
)
def test_tool_says_what_is_wrong(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_tool(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
