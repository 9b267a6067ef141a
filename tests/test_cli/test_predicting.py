"""What ``mmdefocus predict`` makes of its arguments, with a stub for the model."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.example_model import CHECKPOINT, example_images
from mmdefocus.apis.named_model import NamedModel
from mmdefocus.cli import predicting
from mmdefocus.cli.main import make_parser


@pytest.fixture
def request_of(monkeypatch, tmp_path):
    """Read the request of words after ``mmdefocus predict``, in a folder with two pictures of the same name."""
    monkeypatch.chdir(tmp_path)
    for folder in ('left', 'right'):
        Path(folder).mkdir()
        Image.new('RGB', (8, 8)).save(f'{folder}/a.png')
    Path('weights.pth').touch()

    def read(*words, task='detection', weights='weights.pth'):
        model = NamedModel('toy', task, Config(), Config(), weights)
        monkeypatch.setattr(predicting, 'find_named_model', lambda *arguments: model)
        return predicting.read_request(make_parser().parse_args(['predict', *words]))

    return read


def test_pictures_of_equal_names_get_numbers(request_of):
    request = request_of('model.py', 'left', 'right', '--out', 'out')
    assert request.picture_files == [Path('out/a.png'), Path('out/a-2.png')]
    assert Path('out').is_dir()
    assert request.image_ids == [1, 2]


def test_pictures_never_replace_the_images(request_of):
    with pytest.raises(UsageError, match=r"--out left would replace the image 'left/a.png'; name another folder"):
        request_of('model.py', 'left', '--out', 'left')


def test_ids_of_images_are_those_of_the_annotation_file(request_of):
    Path('truth.json').write_text(json.dumps(dict(images=[dict(id='x7', file_name='deep/a.png')])))
    request = request_of('model.py', 'left', '--json', 'found.json', '--annotations', 'truth.json')
    assert request.image_ids == ['x7']


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([dict(id=1, file_name='b.png')], r'1 of 1 images are not in truth.json, such as left/a.png'),
        ([dict(id=1, file_name='p/a.png'), dict(id=2, file_name='q/a.png')], 'have the same file name'),
        ([dict(id=1)], "must be a COCO file with images, each with id and file_name, got KeyError: 'file_name'"),
    ],
)
def test_annotations_that_do_not_tell_the_ids_are_errors(request_of, images, message):
    Path('truth.json').write_text(json.dumps(dict(images=images)))
    with pytest.raises(UsageError, match=message):
        request_of('model.py', 'left', '--json', 'found.json', '--annotations', 'truth.json')


@pytest.mark.parametrize(
    ('words', 'task', 'message'),
    [
        (
            ['m', 'left', '--topk', '3'],
            'detection',
            '--topk is for classifiers, and toy is a detector',
        ),
        (
            ['m', 'left', '--threshold', '0.1'],
            'classification',
            '--threshold is for detectors, and toy is',
        ),
        (['m', 'left', '--annotations', 'truth.json'], 'detection', '--annotations gives the ids of --json'),
        (['m', '--example'], 'detection', '--example has its own model and pictures'),
        (['m'], 'detection', 'expected IMAGES, got none; name them, or use --example'),
        ([], 'detection', 'expected MODEL and IMAGES, got none'),
    ],
)
def test_options_without_effect_and_missing_words_are_errors(request_of, words, task, message):
    with pytest.raises(UsageError, match=message):
        request_of(*words, task=task)


def test_a_model_without_weights_is_an_error_before_a_folder_is_made(request_of):
    with pytest.raises(UsageError, match='toy has no published weights, and without weights'):
        request_of('toy', 'left', '--out', 'out', weights=None)
    assert not Path('out').exists()


def test_files_of_the_request_are_checked_before_anything_is_predicted(request_of):
    with pytest.raises(UsageError, match=r'--annotations none.json must be a COCO file .* got FileNotFoundError'):
        request_of('m', 'left', '--json', 'found.json', '--annotations', 'none.json')
    Path('file').write_text('')
    with pytest.raises(UsageError, match="--json needs a directory that can be written to, got 'file'"):
        request_of('m', 'left', '--json', 'file/found.json')


def test_only_given_numbers_replace_the_defaults(request_of):
    assert request_of('m', 'left').options == dict(batch_size=1, progress=True)
    options = request_of('m', 'left', '--threshold', '0', '--batch-size', '4').options
    assert options == dict(batch_size=4, progress=True, threshold=0)


def test_the_package_has_a_checkpoint_and_three_pictures():
    """tools/make_example_checkpoint.py says how to make the checkpoint."""
    assert [Image.open(path).size for path in example_images()] == [(160, 160)] * 3
    assert 500_000 < CHECKPOINT.stat().st_size < 5_000_000
