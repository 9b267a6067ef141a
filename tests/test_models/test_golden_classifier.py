"""An official classifier at toy size, from an image file to its class, in MMPreTrain's inferencer with our config.

The expected scores come from the preprocessing of the published evaluation, written with torchvision, and from the
network that the golden data prove, in the operators' reference.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer
from PIL import Image
from sklearn.datasets import load_sample_images
from test_golden import assert_parity, build_classifier
from torchvision import transforms

from mmdefocus.models.checkpoint import official_to_mmdefocus

GOLDEN = Path(__file__).parents[1] / 'golden'
CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@pytest.fixture(params=['landscape', 'portrait', 'small', 'grey'])
def photo(request, tmp_path):
    image = Image.fromarray(load_sample_images().images[1])
    if request.param == 'portrait':
        image = image.transpose(Image.Transpose.ROTATE_90)
    elif request.param == 'small':
        image = image.resize((50, 40))
    elif request.param == 'grey':
        image = image.convert('L')
    path = tmp_path / 'photo.png'
    image.save(path)
    return path


def official_scores(photo, expected, official):
    side = expected['arch']['img']
    preprocess = transforms.Compose(
        [
            transforms.Resize(int(256 / 224 * side), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    model = build_classifier(expected['arch']).eval()
    model.load_state_dict(official_to_mmdefocus(official))
    with Image.open(photo) as image, torch.no_grad():
        return model.head(model.extract_feat(preprocess(image.convert('RGB'))[None])).softmax(dim=1)[0]


def toy_config(expected):
    cfg = Config.fromfile(CONFIGS / 'defocus_mamba_base.py')
    arch = expected['arch']
    sizes = ('embed_dims', 'inner_dims', 'dt_rank')
    renamed = {'num_layers': 'depth', 'state_dims': 'state', 'conv_kernel': 'conv', 'group_size': 'group'}
    cfg.model.backbone.arch = {key: arch[key] for key in sizes} | {key: arch[name] for key, name in renamed.items()}
    cfg.model.backbone.img_size = arch['img']
    cfg.model.head.update(num_classes=arch['num_classes'], in_channels=arch['embed_dims'])
    _, resize, crop, _ = cfg.test_dataloader.dataset.pipeline
    # The published evaluation crops 224 of 256 pixels; here as many of the toy's side.
    assert (resize.type, resize.scale, crop.type, crop.crop_size) == ('ResizeEdge', 256, 'CenterCrop', 224)
    resize.scale, crop.crop_size = arch['img'] * 256 // 224, arch['img']
    return cfg


def test_from_image_file_to_class(photo, golden, monkeypatch):
    expected, official = golden('cls_rope')
    inferencer = ImageClassificationInferencer(toy_config(expected), str(GOLDEN / 'cls_rope_official_cls.pth'))
    (found,) = inferencer(str(photo))
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    scores = official_scores(photo, expected, official)
    assert found['pred_label'] == scores.argmax()
    assert_parity(torch.tensor(found['pred_scores']), scores, 'scores')
