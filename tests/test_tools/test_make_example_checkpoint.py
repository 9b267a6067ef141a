"""The tool that reduces a checkpoint for the package."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'make_example_checkpoint.py'


@pytest.fixture
def reduce(monkeypatch, tmp_path):
    """Run the tool with a checkpoint; return the reduced one."""
    spec = importlib.util.spec_from_file_location('make_example_checkpoint', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(content, *options):
        torch.save(content, tmp_path / 'in.pth')
        monkeypatch.setattr(sys, 'argv', ['tool', str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth'), *options])
        module.main()
        return torch.load(tmp_path / 'out.pth', weights_only=True)

    return call


def trained(**weights):
    meta = dict(cfg='a = 1', dataset_meta=dict(classes=('nut',)), epoch=3, iter=9)
    return dict(meta=meta, state_dict=weights, optimizer=dict(step=torch.ones(9)), message_hub={})


def test_only_weights_config_and_names_remain_in_half_precision(reduce, capsys):
    found = reduce(trained(a=torch.tensor([0.1, float('-inf')]), count=torch.tensor([70000])))
    assert found.keys() == {'meta', 'state_dict'}
    assert found['meta'] == dict(cfg='a = 1', dataset_meta=dict(classes=('nut',)))
    assert found['state_dict']['a'].dtype == torch.float16
    assert torch.equal(found['state_dict']['count'], torch.tensor([70000]))
    assert 'bytes →' in capsys.readouterr().out


def test_float32_keeps_the_weights_exactly(reduce):
    weights = torch.rand(5)
    assert torch.equal(reduce(trained(a=weights), '--float32')['state_dict']['a'], weights)


def test_the_image_size_of_the_training_is_kept(reduce):
    state_dict = torch.nn.Linear(2, 2).state_dict()
    state_dict._metadata['']['image_size'] = 160
    content = dict(trained(), state_dict=state_dict)
    assert reduce(content)['state_dict']._metadata[''] == dict(version=1, image_size=160)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (trained(a=torch.tensor([1e6])), 'a has values that half precision cannot hold; use --float32'),
        (dict(meta={}, state_dict={}), 'expected the checkpoint of a training, got one without cfg and dataset_meta'),
        (trained(a=torch.rand(3_000_000)), 'expected a file of at most 5,000,000 bytes, got 6,'),
    ],
)
def test_what_the_package_cannot_use_is_refused_and_leaves_no_file(reduce, content, message, capsys, tmp_path):
    with pytest.raises(SystemExit, match='2'):
        reduce(content)
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()
