"""Option ``--amp`` of every tool and command, on a CPU, at toy size."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from commands import TOOLS
from mmengine.config import Config

from mmdefocus import Detector
from mmdefocus.apis.classification_inferencer import ClassificationInferencer
from mmdefocus.cli.main import main
from mmdefocus.engine import amp_optim_wrapper, amp_prediction
from mmdefocus.models.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / 'toy_dino.py'
EXAMPLE = ROOT / 'mmdefocus' / 'apis' / 'example' / 'defocus_mamba_nano_digits.pth'
SAYS = 'Mixed precision: bfloat16 on cpu'


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch):
    """Any CPU computes in bfloat16; those without the instructions are slow at it."""
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: True)
    monkeypatch.setattr(amp_prediction, 'cpu_has_bfloat16', lambda: True)


@pytest.fixture
def tool(monkeypatch, capfd):
    """Run a tool in this process, and return what it prints."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')
        return ''.join(capfd.readouterr())

    return run


@pytest.fixture
def train(tool, digits_coco):
    def run(work_dir: Path, *words: object, **options: object) -> str:
        settings = [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
        settings += [f'data_root={digits_coco}/', 'randomness.seed=0', f'experiment_name={work_dir.name}']
        return tool('train.py', CONFIG, '--work-dir', work_dir, *words, '--cfg-options', *settings)

    return run


def test_training_and_test(train, tool, tmp_path):
    printed = train(tmp_path / 'mixed', '--amp', model__backbone__blocks_in_fp32=False)
    assert 'Precision: bfloat16 (mixed precision)' in printed
    assert 'Precision: float32' in train(tmp_path / 'exact', model__backbone__blocks_in_fp32=False)
    mixed, exact = (read_checkpoint(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('mixed', 'exact'))
    assert {value.dtype for value in mixed.values() if value.is_floating_point()} == {torch.float32}
    assert not all(torch.equal(mixed[name], exact[name]) for name in exact)
    words = [tmp_path / 'mixed' / 'toy_dino.py', tmp_path / 'mixed' / 'epoch_2.pth', '--work-dir', tmp_path / 'test']
    assert SAYS in tool('test.py', *words, '--amp')
    assert SAYS not in tool('test.py', *words)


def test_the_blocks_of_published_detectors_stay_in_float32(train, tmp_path, monkeypatch):
    """With ``blocks_in_fp32`` the mixers see float32, and without it bfloat16."""
    from mmdefocus.models.mixers import mamba

    seen = []
    scan = mamba.defocus_scan

    def record(u, *words, **rest):
        seen.append(u.dtype)
        return scan(u, *words, **rest)

    monkeypatch.setattr(mamba, 'defocus_scan', record)
    options = dict(train_cfg__max_epochs=1, val_cfg=None, val_dataloader=None, val_evaluator=None)
    train(tmp_path / 'float32', '--amp', model__backbone__blocks_in_fp32=True, **options)
    assert set(seen) == {torch.float32}
    seen.clear()
    train(tmp_path / 'bfloat16', '--amp', model__backbone__blocks_in_fp32=False, **options)
    assert set(seen) == {torch.bfloat16}


def test_a_cpu_without_bfloat16_trains_in_float32(train, tmp_path, monkeypatch):
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: False)
    printed = train(tmp_path / 'amp', '--amp')
    assert 'WARNING - this CPU has no bfloat16 instructions' in printed
    assert 'Precision: float32' in printed
    assert Config.fromfile(tmp_path / 'amp' / 'toy_dino.py').optim_wrapper.type == 'OptimWrapper'
    train(tmp_path / 'plain')
    mixed, exact = (read_checkpoint(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('amp', 'plain'))
    assert all(torch.equal(mixed[name], exact[name]) for name in exact)


def test_the_facade(digits_coco, tmp_path, capfd):
    detector = Detector('nano', cfg_options={'model.num_queries': 10})
    words = dict(epochs=1, image_size=64, batch_size=2, work_dir=tmp_path / 'work', dry_run=False)
    detector.train(digits_coco, amp=True, **words)
    assert 'Precision: bfloat16 (mixed precision)' in ''.join(capfd.readouterr())
    detector.val(amp=True)
    assert SAYS in ''.join(capfd.readouterr())


def entries_of(folder: Path, *words: str) -> list[dict]:
    main(['predict', '--example', '--out', str(folder), '--json', str(folder / 'found.json'), *words])
    return json.loads((folder / 'found.json').read_text())


def test_predict(tmp_path, capfd):
    exact = entries_of(tmp_path / 'exact')
    assert SAYS not in ''.join(capfd.readouterr())
    mixed = entries_of(tmp_path / 'mixed', '--amp')
    assert SAYS in ''.join(capfd.readouterr())
    assert [one['category_id'] for one in mixed] == [one['category_id'] for one in exact]
    assert [one['score'] for one in mixed] != [one['score'] for one in exact]
    for one, other in zip(mixed, exact, strict=True):
        assert one['score'] == pytest.approx(other['score'], abs=0.02)
        assert one['bbox'] == pytest.approx(other['bbox'], abs=0.5)


def test_train_and_val_of_the_command_line(digits_coco, tmp_path, capfd):
    work = tmp_path / 'work'
    words = ['--epochs', '1', '--image-size', '64', '--batch-size', '2', '--no-dry-run', '--work-dir', str(work)]
    options = ['--cfg-options', 'model.num_queries=10']
    main(['train', 'nano', '--data', str(digits_coco), *words, '--amp', *options])
    assert 'Precision: bfloat16 (mixed precision)' in ''.join(capfd.readouterr())
    main(['val', str(work / 'epoch_1.pth'), '--amp'])
    assert SAYS in ''.join(capfd.readouterr())


def test_image_demo(tool, tmp_path):
    image = next((ROOT / 'mmdefocus' / 'apis' / 'example').glob('*.jpg'))
    words = [image, ROOT / 'configs/dino/defocus_mamba_nano_digits.py', '--checkpoint', EXAMPLE, '--device', 'cpu']
    assert SAYS in tool('image_demo.py', *words, '--amp')
    assert SAYS not in tool('image_demo.py', *words)


def test_classifier(monkeypatch):
    said = []
    monkeypatch.setattr(amp_prediction, 'print_log', lambda text, **_: said.append(text))
    config = ROOT / 'configs/classification/defocus_mamba_nano_digits.py'
    inferencer = ClassificationInferencer(str(config), False, 'cpu', strict=False, amp=True)
    weights = inferencer.model.head.fc.weight
    types = []
    inferencer.model.head.fc.register_forward_hook(lambda module, args, out: types.append(out.dtype))
    (result,) = inferencer.forward(next(iter(inferencer.preprocess([torch.zeros(32, 32, 3).byte().numpy()]))))
    assert said == [SAYS]
    assert types == [torch.bfloat16]
    assert weights.dtype == result.pred_score.dtype == torch.float32
