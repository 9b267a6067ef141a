import subprocess
import sys

import mmdet.models
import mmdet.registry
import mmpretrain.models
import mmpretrain.registry
import pytest
import torch
from mmengine.registry import MODELS

import mmdefocus.models

NAMES = ['DefocusMamba', 'DefocusRetNet', 'DefocusViT', 'SimpleFeaturePyramid', 'DefocusLN2d']


@pytest.mark.parametrize('registry', [MODELS, mmdet.registry.MODELS, mmpretrain.registry.MODELS])
@pytest.mark.parametrize('name', NAMES)
def test_names_are_found_from_every_scope(registry, name):
    assert registry.get(name) is getattr(mmdefocus.models, name)


@pytest.mark.parametrize('registry', [mmdet.registry.MODELS, mmpretrain.registry.MODELS])
def test_names_do_not_clash(registry):
    """A type of another package with the same name would hide ours in the scope of that package."""
    assert not set(NAMES) & set(registry.module_dict)


def test_ours_can_be_imported_before_the_others():
    code = 'import mmdefocus.models, mmpretrain.models, mmdet.models'
    subprocess.run([sys.executable, '-c', code], check=True)


def test_classifier_of_mmpretrain_trains_with_the_backbone(toy_arch):
    model = mmpretrain.registry.MODELS.build(
        {
            'type': 'ImageClassifier',
            '_scope_': 'mmpretrain',
            'backbone': {'type': 'DefocusMamba', 'arch': toy_arch},
            'head': {'type': 'LinearClsHead', 'num_classes': 3, 'in_channels': 16},
        }
    )
    model.init_weights()
    samples = [mmpretrain.structures.DataSample().set_gt_label(label) for label in (0, 2)]
    loss = model(torch.randn(2, 3, 32, 32), samples, mode='loss')['loss']
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.get_layer_depth('backbone.layers.1.mixer.D') == (2, 4)
    assert model.get_layer_depth('head.fc.weight') == (3, 4)


def test_backbone_is_built_from_a_config_without_detector_and_classifier_packages(tmp_path):
    code = (
        'import sys\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS\n'
        f'cfg = Config.fromfile({str(tmp_path / "config.py")!r})\n'
        'assert type(MODELS.build(cfg.model)).__name__ == "DefocusMamba"\n'
        'assert not {"mmdet", "mmpretrain"} & set(sys.modules)\n'
    )
    (tmp_path / 'config.py').write_text(
        "custom_imports = dict(imports=['mmdefocus.models'], allow_failed_imports=False)\n"
        "model = dict(type='DefocusMamba', arch='nano')\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
