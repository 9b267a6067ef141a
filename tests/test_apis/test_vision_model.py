"""Training by a few words has the result of tools/train.py on the printed config."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmdefocus.apis.classifier import Classifier
from mmdefocus.apis.detector import Detector
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.overfit import OverfitResult
from mmdefocus.cli.main import main
from mmdefocus.models.checkpoint import read_checkpoint

TRAIN = Path(__file__).parents[2] / 'tools' / 'train.py'
OPTIONS = dict(epochs=2, batch_size=2, image_size=96, seed=3)


@pytest.fixture(scope='module')
def boxes(tmp_path_factory):
    """A COCO set of four training and two validation images with a square each."""
    root = tmp_path_factory.mktemp('boxes')
    draw = np.random.default_rng(0)
    (root / 'annotations').mkdir()
    for split, number in (('train', 4), ('val', 2)):
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(number):
            pixels = draw.integers(0, 99, (32, 48, 3), dtype=np.uint8)
            x, y = (int(one) for one in draw.integers(0, 16, 2))
            pixels[y : y + 12, x : x + 12] = 250
            Image.fromarray(pixels).save(root / split / f'{index}.png')
            images.append(dict(id=index, file_name=f'{index}.png', width=48, height=32))
            annotations.append(
                dict(id=index + 1, image_id=index, category_id=7, bbox=[x, y, 12, 12], area=144, iscrowd=0)
            )
        content = dict(images=images, annotations=annotations, categories=[dict(id=7, name='square')])
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


@pytest.fixture(scope='module')
def trained(boxes, tmp_path_factory):
    """A detector after two epochs, and the result of its training."""
    detector = Detector('defocus_mamba_nano')
    work_dir = tmp_path_factory.mktemp('facade')
    return detector, detector.train(boxes, work_dir=work_dir, dry_run=False, **OPTIONS)


def tensors(path):
    content = read_checkpoint(path)
    found = dict(content['state_dict'])
    for index, state in content['optimizer']['state'].items():
        found.update({f'{index}.{name}': value for name, value in state.items()})
    return found


def test_the_printed_config_gives_equal_weights(boxes, trained, tmp_path, capsys, monkeypatch):
    _, result = trained
    words = ['--epochs', '2', '--batch-size', '2', '--image-size', '96', '--seed', '3']
    main(['config', 'nano', '--data', str(boxes), '--work-dir', str(tmp_path / 'work'), *words])
    printed = capsys.readouterr().out
    config = tmp_path / 'mine.py'
    config.write_text(printed)
    direct = Detector('nano').config(boxes, work_dir=tmp_path / 'work', **OPTIONS)
    direct.dump(tmp_path / 'dumped.py')
    assert (tmp_path / 'dumped.py').read_text() == printed
    monkeypatch.setattr(sys, 'argv', [str(TRAIN), str(config)])
    runpy.run_path(str(TRAIN), run_name='__main__')
    ours, theirs = (tensors(folder / 'epoch_2.pth') for folder in (result.work_dir, tmp_path / 'work'))
    assert ours.keys() == theirs.keys()
    assert len(ours) > 300
    assert all(torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])) for key in ours)


def test_images_with_too_few_positions_are_refused(boxes, tmp_path):
    options = dict(OPTIONS, work_dir=tmp_path)
    with pytest.raises(
        UsageError,
        match=r'its 100 queries among the positions of an image, and an image of train, 32x21 pixels after resizing, '
        r'has 15; set image_size=85 \(--image-size 85\), the smallest that works, or lower model.num_queries to 15',
    ):
        Detector('nano').train(boxes, **dict(options, image_size=32))
    assert Detector('nano').config(boxes, **dict(options, image_size=85)).model.num_queries == 100
    few = Detector('nano', cfg_options={'model.num_queries': 15})
    with pytest.raises(UsageError, match=r'15 queries for 1 classes make 15 predictions, and .*max_per_img=100 asks'):
        few.config(boxes, **dict(options, image_size=32))


def test_the_commands(boxes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ['--epochs', '1', '--batch-size', '2', '--image-size', '96']
    command = [sys.executable, '-m', 'mmdefocus', 'train', 'defocus_mamba_nano', '--data', str(boxes), *words]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert 'batch of 2: peak' in printed
    folder = Path('work_dirs') / f'defocus_mamba_nano_{boxes.name}'
    best = folder / 'best_coco_bbox_mAP_epoch_1.pth'
    assert f'best checkpoint: {best.absolute()}' in printed or f'best checkpoint: {best}' in printed
    main(['val', str(best), '--json', 'metrics.json'])
    assert 'coco/bbox_mAP' in json.loads(Path('metrics.json').read_text())


def test_a_trial_on_a_few_images(boxes, tmp_path, monkeypatch, capsys):
    words = ['--lr', '0.003', '--seed', '5', '--image-size', '96', '--work-dir', str(tmp_path / 'work')]
    asked = []

    def overfit(cfg, images, lr, seed):
        asked.append((cfg.work_dir, images, lr, seed))
        return OverfitResult(
            0.3, 'coco/bbox_mAP', 300, False, ('a.png',) * images, tmp_path, 0.9, images, 0, 1, 100, 1e-3
        )

    monkeypatch.setattr('mmdefocus.apis.overfit.overfit', overfit)
    with pytest.raises(SystemExit) as end:
        main(['train', 'nano', '--data', str(boxes), '--overfit', *words])
    assert end.value.code == 1
    assert asked == [(str(tmp_path / 'work'), 8, 0.003, 5)]
    assert 'overfit failed: AP 0.300 on 8 images after 300 passes, expected at least 0.9' in capsys.readouterr().out


@pytest.mark.parametrize('option', [dict(epochs=3), dict(batch_size=2), dict(resume=True), dict(amp=True)])
def test_a_trial_refuses_options_without_effect(boxes, tmp_path, option):
    message = f'overfit has passes, batch and precision of its own; leave out {next(iter(option))}'
    with pytest.raises(UsageError, match=message):
        Detector('nano').train(boxes, overfit=8, work_dir=tmp_path, **option)


def test_the_result(boxes, trained):
    detector, result = trained
    assert len(detector.predict(boxes / 'val' / '0.png', threshold=0.4)) == 1
    assert detector.weights == str(result.checkpoint)
    assert result.checkpoint.name.startswith('best_coco_bbox_mAP_epoch_')
    assert 'coco/bbox_mAP' in result.metrics
    assert (result.work_dir / 'config.py').is_file()
    log = next(result.work_dir.glob('*/*.log')).read_text()
    assert 'peak_gib' in log
    notes = Config.fromfile(result.work_dir / 'config.py').notes
    assert notes
    assert all(note in log for note in notes)
    assert 'eta' in log


def test_the_checkpoint_is_a_model(trained):
    detector, result = trained
    again = Detector(result.checkpoint)
    assert again.cfg.model.bbox_head.num_classes == 1
    assert again.weights == str(result.checkpoint)
    assert detector.val() == again.val(split='val')
    assert Detector(result.work_dir).weights == again.weights
    with pytest.raises(UsageError, match='is for detection: use Detector'):
        Classifier(result.checkpoint)


def test_a_folder_without_checkpoints_is_no_model(tmp_path):
    with pytest.raises(UsageError, match='has no checkpoint; name the work directory of a training that has ended an'):
        Detector(tmp_path)


def test_a_training_is_not_overwritten(boxes, trained):
    _, result = trained
    with pytest.raises(UsageError, match=r'continue it with resume=True .* or name another'):
        Detector('nano').train(boxes, work_dir=result.work_dir, **OPTIONS)


def test_a_resumed_training_that_is_complete_keeps_its_result(boxes, trained):
    _, result = trained
    again = Detector('nano').train(boxes, work_dir=result.work_dir, resume=True, **OPTIONS)
    assert again.checkpoint == result.checkpoint


def test_without_weights_there_is_no_evaluation():
    with pytest.raises(UsageError, match='defocus_vit_nano has no weights, so it can evaluate nothing'):
        Detector('defocus_vit_nano').val()


def test_the_zoo_needs_data():
    with pytest.raises(UsageError, match=r'needs data: data=FOLDER \(--data FOLDER\)'):
        Detector('nano').train()


def test_official_files_need_a_config(tmp_path):
    torch.save({'model': {'patch_embed.proj.weight': torch.zeros(1)}}, tmp_path / 'file.pth')
    with pytest.raises(UsageError, match='has no config; give the config or the name in the zoo as the model'):
        Detector(tmp_path / 'file.pth')


def test_a_classifier(tmp_path, monkeypatch):
    for split in ('train', 'val'):
        for label, name in enumerate(('dark', 'light')):
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                Image.new('RGB', (20, 20), (200 * label + index,) * 3).save(folder / f'{split}{index}.png')
    monkeypatch.chdir(tmp_path)
    result = Classifier('nano').train('data', epochs=1, batch_size=2, dry_run=False)
    assert result.work_dir == tmp_path / 'work_dirs' / 'defocus_mamba_nano_data'
    assert 'accuracy/top1' in result.metrics
