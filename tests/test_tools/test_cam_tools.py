"""tools/analysis/cam.py and tools/analysis/detector_queries.py: pictures, and errors that name the mistake."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from commands import TOOLS, error_of
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('pytorch_grad_cam')

CONFIGS = Path(__file__).parents[2] / 'configs'
CLASSIFIER = CONFIGS / 'classification' / 'defocus_mamba_nano_digits.py'
DETECTOR = CONFIGS / 'dino' / 'defocus_mamba_nano_digits.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an image, and initial weights of a classifier and of a detector."""
    out = tmp_path_factory.mktemp('cam')
    for name, path in (('classifier', CLASSIFIER), ('detector', DETECTOR)):
        config = Config.fromfile(path)
        model = config.model
        if name == 'classifier':
            model.data_preprocessor = dict(type='ClsDataPreprocessor', **config.data_preprocessor)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(config.default_scope):
            built = MODELS.build(model)
            built.init_weights()
        torch.save({'state_dict': built.state_dict(), 'meta': {}}, out / f'{name}.pth')
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    cv2.imwrite(str(out / 'image.png'), pixels)
    return out


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., Any]:
    def call(tool: str, *words: str | Path, model: Path, weights: str, image: str = 'image.png') -> None:
        path = TOOLS / 'analysis' / tool
        arguments = [path, folder / image, model, '--checkpoint', folder / weights, '--device', 'cpu', *words]
        monkeypatch.setattr(sys, 'argv', list(map(str, arguments)))
        runpy.run_path(str(path), run_name='__main__')

    return call


def test_a_class_activation_map(run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    pictures = []
    for words in ((), ('--class', '3'), ('--layer', '1'), ('--method', 'EigenCAM', '--side', 'output')):
        out = tmp_path / 'new' / f'{len(pictures)}.png'
        run('cam.py', '--out', out, *words, model=CLASSIFIER, weights='classifier.pth')
        assert f'picture: {out}' in capsys.readouterr().out
        pictures.append(cv2.imread(str(out)))
    assert {picture.shape for picture in pictures} == {(224, 224, 3)}
    assert all((pictures[0] != picture).any() for picture in pictures[1:])


def test_detections(run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    for at in ('features', 'image', '1'):
        run(
            'detector_queries.py', '--out', tmp_path, '--score-thr', '0', '--top', '3', '--at', at,
            model=DETECTOR, weights='detector.pth',
        )  # fmt: skip
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == f'picture: {tmp_path / "image.png"}'
        assert len([line for line in lines if line.startswith('  0.')]) == 3
        assert cv2.imread(str(tmp_path / 'image.png')).shape[1] > 600


@pytest.mark.parametrize(
    ('tool', 'words', 'changes', 'message'),
    [
        ('cam.py', ('--layer', '7'), {}, r'has the layers 0 to 3 (or -4 to -1), got 7'),
        ('cam.py', ('--class', '10'), {}, r'classes must be an index from 0 to 9'),
        ('cam.py', ('--side', 'output'), {}, r"take side='input' of the last layer"),
        ('cam.py', ('--method', 'EigenCAM', '--class', '1'), {}, r'EigenCAM explains the activations, not a class'),
        ('cam.py', ('--out', 'cam'), {}, r"--out needs the name of a picture, such as cam.png, got 'cam'"),
        ('cam.py', ('--out', 'image.png/cam.png'), {}, r"--out needs a directory that can be written"),
        ('cam.py', (), {'image': 'missing.png'}, r"missing.png' does not exist"),
        ('cam.py', (), {'image': 'detector.pth'}, r'cannot be decoded'),
        ('cam.py', (), {'weights': 'detector.pth'}, r'detector.pth does not fit the model'),
        ('cam.py', (), {'model': DETECTOR}, r'DINO is a detector; tools/analysis/detector_queries.py draws'),
        ('detector_queries.py', (), {}, r'no detection has a score of at least 0.3 (the best has 0.0'),
        ('detector_queries.py', ('--of', 'box', '--score-thr', '0'), {}, r'detection 0 does not depend on the image'),
        ('detector_queries.py', ('--top', '0'), {}, r'top must be at least 1'),
        ('detector_queries.py', ('--out', 'image.png'), {}, r"--out needs a directory that can be written"),
        ('detector_queries.py', (), {'model': CLASSIFIER}, r'ImageClassifier is no detector; tools/analysis/cam.py'),
        ('detector_queries.py', (), {'weights': 'classifier.pth'}, r'classifier.pth does not fit the model'),
    ],
)  # fmt: skip
def test_mistakes(
    run: Callable,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tool: str,
    words: tuple,
    changes: dict,
    message: str,
):
    monkeypatch.chdir(folder)
    kind = 'classifier' if tool == 'cam.py' else 'detector'
    options = {'model': CLASSIFIER if tool == 'cam.py' else DETECTOR, 'weights': f'{kind}.pth', **changes}
    out = () if '--out' in words else ('--out', 'pictures/cam.png' if tool == 'cam.py' else 'pictures')
    assert message in error_of(capsys, run, tool, *out, *words, **options)
