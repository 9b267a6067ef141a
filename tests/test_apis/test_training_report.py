"""Tests of the report of real, very short trainings of a detector and a classifier."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headless_browser import headless_chromium
from page_checks import check_page
from PIL import Image
from sklearn.datasets import load_digits

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.report_parts.evaluation import evaluate_detector, validation_config
from mmdefocus.apis.report_parts.history import find_checkpoint, find_config, find_start, read_history
from mmdefocus.apis.report_parts.machine_sections import add_repetition
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.apis.training_report import write_report
from mmdefocus.cli.main import main
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared import prepare_data
from mmdefocus.pages import Page

CONFIG = Path(__file__).parents[2] / 'configs/classification/defocus_mamba_nano_digits.py'
SMALL = ('model.num_queries=20', 'model.encoder.num_layers=1', 'model.decoder.num_layers=2')


@pytest.fixture(scope='module')
def detector(tmp_path_factory: pytest.TempPathFactory, digits_coco: Path) -> Path:
    """Train as a user does."""
    folder = tmp_path_factory.mktemp('detector') / 'run'
    options = ['--epochs', '2', '--batch-size', '2', '--image-size', '96', '--seed', '3', '--no-dry-run']
    main(
        ['train', 'nano', '--data', str(digits_coco), '--work-dir', str(folder), *options, '--cfg-options', *SMALL],
    )
    return folder


@pytest.fixture(scope='module')
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a config whose data set holds its images in memory."""
    folder = tmp_path_factory.mktemp('classifier') / 'run'
    options: dict[str, Any] = {f'{split}_dataloader.dataset.indices': 40 for split in ('train', 'val')}
    options |= {'train_dataloader.batch_size': 20, 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
    cfg = load_config(CONFIG, options, str(folder))
    apply_train_options(cfg)
    build_runner(cfg).train()
    return folder


@pytest.fixture(scope='module')
def detector_page(detector: Path) -> Path:
    main(['report', str(detector), '--no-latency'])
    return detector / 'report' / 'index.html'


@pytest.fixture(scope='module')
def classifier_page(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(classifier, tmp_path_factory.mktemp('report'), device='cpu', variants=('eager',), seconds=0.01)


@pytest.fixture(scope='module')
def driver() -> Iterator[Any]:
    with headless_chromium() as driver:
        yield driver


def test_report_of_a_detector_has_every_part(detector: Path, detector_page: Path) -> None:
    assert detector_page.stat().st_size < 15e6
    text = detector_page.read_text('utf-8')
    for heading in (
        *('Summary', 'Curves', 'COCO metrics', 'Classes', 'Precision and recall', 'Confusion', 'Kinds of errors'),
        *('False positives', 'False negatives', 'Size, crowding and shape', 'Calibration', 'Latency', 'Repeat it'),
    ):
        assert f'>{heading}</h2>' in text
    assert text.count('data:image/jpeg') > 3
    content = json.loads(detector_page.with_name('report.json').read_text())
    assert content['checkpoint'] == str(find_checkpoint(detector, None))
    epoch = int(content['checkpoint'].removesuffix('.pth').rpartition('_')[2])
    logged = content['history']['validations'][epoch - 1]
    assert content['statistics']['table']['AP'] == pytest.approx(logged['coco/bbox_mAP'], abs=5e-4)
    assert content['metrics']['coco/bbox_mAP'] == logged['coco/bbox_mAP']
    assert content['statistics']['images'] == 4
    assert [entry['step'] for entry in content['history']['steps']] == [1, 2, 3, 4]
    assert content['seed'] == 3
    assert content['latency'] == 'Not measured: latency was switched off.'
    assert content['latency'] in text
    assert 'PyTorch' in content['environment']


def test_the_command_of_a_report_repeats_the_training(
    detector: Path, detector_page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = json.loads(detector_page.with_name('report.json').read_text())['command']
    program, *words = shlex.split(command)
    assert program == 'mmdefocus'
    monkeypatch.chdir(tmp_path)
    main([*words, '--no-dry-run'])  # the trial of the memory changes nothing, and takes time
    first, again = (
        torch.load(folder / 'epoch_2.pth', weights_only=False)['state_dict']
        for folder in (detector, tmp_path / 'repeated')
    )
    assert list(first) == list(again)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_resumed_training_starts_where_its_first_run_did(tmp_path: Path) -> None:
    for name, text in dict(a='load_from = "pretrained.pth"', b='load_from = "epoch_1.pth"; resume = True').items():
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data/config.py').write_text(text)
    page, last = Page('Report'), tmp_path / 'b/vis_data/config.py'
    cfg = load_config(last)
    command = add_repetition(page, cfg, last, Path('epoch_2.pth'), 7, find_start(tmp_path, cfg), {})
    assert command.endswith(' --cfg-options randomness.seed=7 load_from=pretrained.pth')
    shutil.rmtree(tmp_path / 'a')
    with pytest.raises(UsageError, match='without the config of its first run'):
        find_start(tmp_path, cfg)


def test_other_data_are_reported(detector: Path, detector_page: Path, digits_coco: Path, tmp_path: Path) -> None:
    prepared = prepare_data(write_yolo(digits_coco, tmp_path / 'yolo'), tmp_path / 'data')
    assert prepared.format == 'yolo'
    cfg = load_config(find_config(detector))
    checkpoint = find_checkpoint(detector, None)
    found = evaluate_detector(validation_config(cfg, checkpoint, tmp_path, prepared))
    content = json.loads(detector_page.with_name('report.json').read_text())
    assert found.metrics['coco/bbox_mAP'] == content['metrics']['coco/bbox_mAP']
    assert len(found.predictions) > 0
    assert {path.parent for path in found.paths.values()} == {tmp_path / 'yolo/images/val'}


def write_yolo(coco: Path, folder: Path) -> Path:
    """Write a COCO set of digits in YOLO's format."""
    for split in ('train', 'val'):
        content = json.loads((coco / f'annotations/instances_{split}.json').read_text())
        positions = {category['id']: position for position, category in enumerate(content['categories'])}
        shutil.copytree(coco / split, folder / 'images' / split)
        (folder / 'labels' / split).mkdir(parents=True)
        for image in content['images']:
            lines = []
            for one in (one for one in content['annotations'] if one['image_id'] == image['id']):
                x, y, width, height = one['bbox']
                box = [(x + width / 2) / image['width'], (y + height / 2) / image['height']]
                box += [width / image['width'], height / image['height']]
                lines.append(' '.join(map(str, [positions[one['category_id']], *box])))
            path = (folder / 'labels' / split / image['file_name']).with_suffix('.txt')
            path.write_text('\n'.join(lines))
    names = json.dumps([category['name'] for category in content['categories']])
    (folder / 'data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')
    return folder


def test_benchmark_of_a_checkpoint(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(f'benchmark {detector}/epoch_2.pth --variants eager --seconds 0.01 --device cpu --json'.split())
    (eager,) = json.loads(capsys.readouterr().out)
    assert (eager['variant'], eager['image_size'], eager['note']) == ('eager', [96, 96], '')
    assert eager['milliseconds_median'] > 0


def test_benchmark_of_a_classifier_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    options = '--task classification --image-size 32 --variants eager --seconds 0.01 --device cpu'
    main(['benchmark', 'nano', *options.split()])
    out, err = capsys.readouterr()
    assert 'No checkpoint: initial weights' in err
    assert '1 x 32 x 32 pixels on cpu' in out
    assert out.rstrip().endswith('1000 classes, as without data')


def test_report_of_a_classifier(classifier_page: Path) -> None:
    content = json.loads(classifier_page.with_name('report.json').read_text())
    statistics = content['statistics']
    assert statistics['images'] == 40
    assert 100 * statistics['top1'] == pytest.approx(content['metrics']['accuracy/top1'])
    assert content['summary'][0] == f'{statistics["top1"]:.1%} of 40 images are right.'
    assert content['seed'] == 0
    assert content['latency'][0]['peak_bytes'] > 0
    text = classifier_page.read_text('utf-8')
    assert 'cannot be read' not in text  # these images are arrays, not files
    assert text.count('data:image/jpeg') >= len(statistics['worst_mistakes']) > 0


def test_pages_in_a_browser(driver: Any, detector_page: Path, classifier_page: Path) -> None:
    for path in (detector_page, classifier_page):
        check_page(driver, path)


def test_class_folders_are_reported(classifier: Path, tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    for position in range(60):
        folder = tmp_path / 'digits' / ('train' if position < 30 else 'val') / str(labels[position])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(images[position].reshape(8, 8) * 15)).save(folder / f'{position}.png')
    page = write_report(classifier, tmp_path / 'report', latency=False, data=tmp_path / 'digits')
    content = json.loads(page.with_name('report.json').read_text())
    assert content['statistics']['images'] == 30
    assert content['data'] == str(tmp_path / 'digits')
    assert f'This is about the split val of {tmp_path / "digits"}' in page.read_text('utf-8')
    assert '.png' in content['statistics']['worst_mistakes'][0]['path']


def test_interrupted_and_resumed_runs_are_one_history(tmp_path: Path) -> None:
    lines = {
        '20260101_000000': ['{"loss": 3.0, "iter": 1, "step": 1}', '{"loss": 2.0, "iter": 2, "step": 2}', '{"loss": 1'],
        '20260102_000000': ['{"loss": 2.5, "iter": 2, "step": 2}', '{"coco/bbox_mAP": 0.5, "step": 1}'],
    }
    for name, content in lines.items():
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data' / 'scalars.json').write_text('\n'.join(content))
    history = read_history(tmp_path)
    assert history.series('loss') == ([1.0, 2.0], [3.0, 2.5])
    assert history.validation_series('coco/bbox_mAP') == ([1.0], [0.5])
    assert history.runs == 2
    assert history.notes == ('1 lines of 20260101_000000/vis_data/scalars.json are no JSON and are left out.',)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='does not exist; name that of a training'):
        find_config(tmp_path / 'absent')
    with pytest.raises(UsageError, match='has no config'):
        find_config(tmp_path)
    with pytest.raises(UsageError, match='has no checkpoint; name the work directory'):
        find_checkpoint(tmp_path, None)


def test_data_that_do_not_exist_are_named(classifier: Path) -> None:
    with pytest.raises(DataError, match='absent'):
        write_report(classifier, latency=False, data='absent')
