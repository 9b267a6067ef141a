"""Images given to the inferencers in Python."""

from typing import Any

import numpy as np
import pytest
import torch
from broken_inputs import Case, Workplace, each
from PIL import Image

from mmdefocus.apis.inference import ClassificationInferencer, DetectionInferencer

INTRODUCTION = (
    'Images and arguments given to `ClassificationInferencer` and `DetectionInferencer` in Python. Both say the '
    'same\nabout an image.'
)
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def of_both(what: str, says: str, *images: Any, **options: Any) -> Case:
    """A case in which both inferencers are called with the same images and give the same message."""

    def attempt(place: Workplace) -> str:
        first, second = (place.refusal(inferencer, *images, **options) for inferencer in place.inferencers)
        assert first == second
        return first

    return Case(what, attempt, says)


def image(what: str, value: Any, says: str) -> Case:
    """A case in which both inferencers get this image, or list of images."""
    return of_both(what, says, value)


def made(kind: type, what: str, says: str, *given: Any, **options: Any) -> Case:
    """A case in which an inferencer is made."""
    name = kind.__name__

    def attempt(place: Workplace) -> str:
        return place.refusal(kind, *given, **options)

    return Case(f'{name}: {what}', attempt, says)


CASES = [
    image(
        'floats from 0 to 1',
        PIXELS / 255,
        'got float64 | expected an image as uint8 from 0 to 255 | for values from 0 to 1, pass (255 *',
    ),
    image(
        'floats from 0 to 255',
        PIXELS.astype(np.float32),
        'got float32 | expected an image as uint8 from 0 to 255 | for values from 0 to 1, pass (255 *',
    ),
    image(
        'NaN',
        np.full((30, 40, 3), np.nan, np.float32),
        'got float32 | expected an image as uint8 from 0 to 255 | for values from 0 to 1, pass (255 *',
    ),
    image(
        'whole numbers of 64 bits',
        PIXELS.astype(int),
        "got int64 | expected an image as uint8 from 0 to 255 | pass array.astype('uint8') if all values are from 0",
    ),
    image(
        '16 bits',
        PIXELS.astype(np.uint16),
        "got uint16 | expected an image as uint8 from 0 to 255 | for 16 bits, pass (array // 256).astype('uint8')",
    ),
    image(
        'a mask of bool',
        PIXELS > 0,
        "got bool | expected an image as uint8 from 0 to 255 | pass array.astype('uint8') if all values are from 0",
    ),
    image(
        'channels first',
        PIXELS.transpose(2, 0, 1).copy(),
        'got (3, 30, 40) | expected an image of shape (height, width) | pass array.transpose(1, 2, 0) if the',
    ),
    image(
        'two channels',
        PIXELS[..., :2],
        'got (30, 40, 2) | expected an image of shape (height, width) or | select the channels to show, such as',
    ),
    image(
        'five channels',
        np.zeros((30, 40, 5), np.uint8),
        'got (30, 40, 5) | expected an image of shape (height, width) or | select the channels to show, such as',
    ),
    image(
        'a single row of numbers',
        PIXELS[0, :, 0],
        'got (40,) | expected an image of shape (height, width) or | select the channels to show, such as array[...',
    ),
    image(
        'a batch as one array',
        PIXELS[None],
        'got (1, 30, 40, 3) | expected an image of shape (height, width) | pass a batch as a list of images',
    ),
    image(
        'no pixels',
        PIXELS[:0],
        'got (0, 40, 3) | expected an image of shape (height, width) | it has no pixels: check how it was read or',
    ),
    image(
        'no width',
        PIXELS[:, :0],
        'got (30, 0, 3) | expected an image of shape (height, width) | it has no pixels: check how it was read or',
    ),
    image(
        'an array of objects',
        np.array([PIXELS, None], dtype=object),
        "got object | expected an image as uint8 from 0 to 255 | pass array.astype('uint8') if all values are from",
    ),
    image(
        'a PyTorch tensor',
        torch.from_numpy(PIXELS),
        'got Tensor | expected a path or URL, a uint8 array (height | for an RGB tensor (3, height, width) from 0',
    ),
    image(
        'None',
        None,
        'got NoneType | expected a path or URL, a uint8 array (height, width | pass an image, or a list of images',
    ),
    image(
        'a number',
        3,
        'got int | expected a path or URL, a uint8 array (height, width | pass an image, or a list of images',
    ),
    image(
        'bytes of a file',
        b'\xff\xd8\xff',
        'got bytes | expected a path or URL, a uint8 array (height, width | for the content of a file, pass',
    ),
    image(
        'nested lists',
        PIXELS.tolist(),
        'got list | expected a path or URL, a uint8 array (height | for nested lists of values from 0 to 255, pass',
    ),
    image('an empty list', [], 'got an empty list | expected at least one image | pass the images, or skip the call'),
    image(
        'a list with one bad image',
        [PIXELS, PIXELS / 255],
        'got float64 | expected an image as uint8 from 0 to 255 | for values from 0 to 1, pass (255 *',
    ),
    image(
        'a list with None',
        [PIXELS, None],
        'got NoneType | expected a path or URL, a uint8 array (height, width | pass an image, or a list of images',
    ),
    image(
        'a dictionary',
        dict(image=PIXELS),
        'got the keys image | expected a dictionary with img or img_path | pass the image itself',
    ),
    image(
        'a file that does not exist',
        'nowhere.jpg',
        "'nowhere.jpg' does not exist | expected the path or URL of an image | correct it",
    ),
    image(
        'a list with a file that does not exist',
        ['images/a.jpg', 'nowhere.jpg'],
        "'nowhere.jpg' does not exist | expected the path or URL of an image | correct it",
    ),
    image(
        'an address that does not exist',
        'http://127.0.0.1:9/cat.jpg',
        '<urlopen error [Errno 111] | expected an address of an image | correct it, or download the image and',
    ),
    image(
        'an empty text',
        '',
        "got none | expected images in folder '' (.jpg, .jpeg, .png | name a file, or a folder with images directly",
    ),
    image(
        'a folder without images',
        'train',
        "got none | expected images in folder 'train' (.jpg, .jpeg | name a file, or a folder with images directly",
    ),
    image(
        'a Pillow image of 16 bits',
        Image.fromarray(PIXELS[..., 0].astype(np.uint16)),
        "got 'I;16' | expected a Pillow image with 8 bits per channel, such | scale its values to 0 to 255 and pass",
    ),
    image(
        'a Pillow image of floats',
        Image.fromarray(PIXELS[..., 0].astype(np.float32)),
        "got 'F' | expected a Pillow image with 8 bits per channel, such as | scale its values to 0 to 255 and pass",
    ),
    of_both(
        'batch_size is 0',
        'got 0 | batch_size must be an integer from 1 | pass 1 for one image at a time',
        PIXELS,
        batch_size=0,
    ),
    of_both(
        'batch_size is a fraction',
        'got 0.5 | batch_size must be an integer from 1 | pass 1 for one image at a time',
        PIXELS,
        batch_size=0.5,
    ),
    Case(
        'classification: an unknown argument',
        lambda place: place.refusal(place.inferencers[1], PIXELS, k=3),
        'got k | expected arguments among draw_score, rescale_factor, resize, show, show_dir | correct the name',
    ),
    Case(
        'detection: an unknown argument',
        lambda place: place.refusal(place.inferencers[0], PIXELS, k=3),
        'got k | expected arguments among draw_pred, img_out_dir, no_save_pred, no_save_vis | correct the name',
    ),
    made(
        ClassificationInferencer,
        'the model is unknown',
        'Failed to find model "defocus-mamba-bas_3rdparty_in1k" | available names | use `mmpretrain.list_models`',
        'defocus-mamba-bas_3rdparty_in1k',
    ),
    made(
        ClassificationInferencer,
        'the config does not exist',
        "'classifer.py' does not exist | expected the path of a config file | correct it",
        'classifer.py',
    ),
    made(
        ClassificationInferencer,
        "num_classes='auto' is not resolved",
        "num_classes='auto' | the number of classes of the training set | build the head with a number",
        'classifier.py',
        'weights.pth',
    ),
    made(
        ClassificationInferencer,
        'the weights do not exist',
        'nowhere.pth | expected the path or the URL of a checkpoint | correct it',
        'fixed.py',
        'nowhere.pth',
    ),
    made(
        ClassificationInferencer,
        'the weights are of another network',
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
        'fixed.py',
        'detector.pth',
    ),
    made(
        ClassificationInferencer,
        'topk is 0',
        'got 0 | topk must be positive | give the number of classes to show, such as 5',
        'fixed.py',
        'weights.pth',
        topk=0,
    ),
    made(
        DetectionInferencer,
        'the model is unknown',
        "got 'defocus-mamba-bas' (Cannot | expected a config, its path, or the | for a model of mmdefocus, give the",
        'defocus-mamba-bas',
    ),
    made(
        DetectionInferencer,
        'the config does not exist',
        "'detecter.py' does not exist | expected the path of a config file | correct it",
        'detecter.py',
    ),
    made(
        DetectionInferencer,
        'the weights do not exist',
        'nowhere.pth | expected the path or the URL of a checkpoint | correct it',
        'detector.py',
        'nowhere.pth',
    ),
    made(
        DetectionInferencer, 'there are no weights', 'no weights | name a checkpoint | name a checkpoint', 'detector.py'
    ),
    made(
        DetectionInferencer,
        'the weights are of another network',
        '120 missing | does not fit the model | Use the config that the checkpoint was trained with',
        'detector.py',
        'weights.pth',
    ),
    made(
        DetectionInferencer,
        'the device is unknown',
        "got 'gpu' | device must be 'cpu', or 'cuda' where PyTorch | use 'cpu'",
        'detector.py',
        'detector.pth',
        device='gpu',
    ),
]


@pytest.fixture(scope='module')
def inferencers(valid_inputs):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(valid_inputs)
        return (
            DetectionInferencer('detector.py', 'detector.pth', device='cpu', show_progress=False),
            ClassificationInferencer('fixed.py', 'weights.pth', device='cpu'),
        )


@each(CASES)
def test_broken_arrays(case, check, place, inferencers):
    place.inferencers = inferencers
    check(case)
