"""Networks with weights, and images as they see them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.apis.analysis_models import load_network
from mmdefocus.apis.analysis_words import parse_model
from mmdefocus.apis.errors import UsageError
from mmdefocus.models.checkpoint import CheckpointError

ROOT = Path(__file__).parents[2]
CLASSIFIER = ROOT / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'
DETECTOR = ROOT / 'configs' / 'dino' / 'defocus_vit_nano_digits.py'
TIMM = 'test_vit'  # of 0.4 million parameters, for 160 x 160 pixels


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """Write an image of 100 x 60 pixels whose red grows to the right and whose green grows downwards."""
    path = tmp_path_factory.mktemp('images') / 'ramps.png'
    ramps = np.zeros((60, 100, 3), np.uint8)
    ramps[..., 0], ramps[..., 1] = np.linspace(0, 255, 100), np.linspace(0, 255, 60)[:, None]
    Image.fromarray(ramps).save(path)
    return str(path)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Write checkpoints of the nano classifier and detector, and return their folder."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(1)
    for config, name in ((CLASSIFIER, 'classifier.pth'), (DETECTOR, 'detector.pth')):
        cfg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        model.init_weights()
        meta = dict(dataset_meta=dict(classes=list('0123456789')))
        torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / name)
    return folder


def test_a_classifier_has_the_weights_of_its_checkpoint(weights, image):
    loaded = load_network(parse_model(f'Nano={CLASSIFIER}@{weights}/classifier.pth'))
    saved = torch.load(weights / 'classifier.pth')['state_dict']
    assert all(torch.equal(saved[name], value) for name, value in loaded.network.model.state_dict().items())
    assert not any(module.training for module in loaded.network.model.modules())
    assert loaded.label == 'Nano'
    assert loaded.description == f'{CLASSIFIER}, {weights}/classifier.pth'
    assert loaded.classes[7] == '7'
    assert loaded.network.run(loaded.prepare(image).inputs).shape == (1, 10)


def test_the_picture_is_what_the_network_sees(weights, image):
    prepared = load_network(parse_model(f'{CLASSIFIER}@{weights}/classifier.pth')).prepare(image)
    assert prepared.name == 'ramps.png'
    assert prepared.inputs.shape == (1, 3, 32, 32)
    assert prepared.picture.shape == (32, 32, 3)
    red, green, blue = prepared.picture.astype(int).transpose(2, 0, 1)
    assert red[:, -1].min() > 240 > 15 > red[:, 0].max()
    assert green[-1].min() > 240 > 15 > green[0].max()
    assert blue.max() == 0
    torch.testing.assert_close(prepared.inputs[0, 2] * 89 + 79, torch.from_numpy(red).float())  # BGR of this config


def test_a_detector_is_loaded_whole_and_its_backbone_analysed(weights, image):
    loaded = load_network(parse_model(f'{DETECTOR}@{weights}/detector.pth'))
    prepared = loaded.prepare(image)
    assert loaded.network.run(prepared.inputs) is None
    assert loaded.network.is_defocus
    red = prepared.picture.astype(int)[..., 0]
    columns = prepared.inputs.shape[-1]
    assert red[0, columns - 1] > 240 > 15 > red[0, 0]
    patch = loaded.network.backbone.patch_size
    assert [side % patch for side in prepared.picture.shape[:2]] == [0, 0]
    assert 0 <= prepared.picture.shape[0] - prepared.inputs.shape[2] < patch


def test_a_classifier_after_a_detector(weights, image):
    loaded = [
        load_network(parse_model(f'{config}@{weights}/{name}'))
        for config, name in ((DETECTOR, 'detector.pth'), (CLASSIFIER, 'classifier.pth'), (DETECTOR, 'detector.pth'))
    ]
    loaded.append(load_network(parse_model('resnet18_8xb32_in1k'), random_weights=True))
    logits = [network.network.run(network.prepare(image).inputs) for network in loaded]
    assert [None if values is None else values.shape for values in logits] == [None, (1, 10), None, (1, 1000)]


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    word = parse_model(str(CLASSIFIER))
    first, again, other = (load_network(word, random_weights=True, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    parameters = [next(iter(network.network.model.parameters())) for network in (first, again, other)]
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])
    assert first.description == f'{CLASSIFIER}, random weights (seed 3)'
    assert first.classes is None


def test_a_named_checkpoint_wins_over_random_weights(weights):
    loaded = load_network(parse_model(f'{CLASSIFIER}@{weights}/classifier.pth'), random_weights=True)
    saved = torch.load(weights / 'classifier.pth')['state_dict']
    assert torch.equal(saved['head.fc.weight'], loaded.network.model.head.fc.weight)


def test_backbones_do_not_start_from_a_checkpoint_with_random_weights(tmp_path):
    config = tmp_path / 'pretrained.py'
    config.write_text(
        f"_base_ = '{CLASSIFIER}'\nmodel = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='no.pth')))\n"
    )
    assert load_network(parse_model(str(config)), random_weights=True).network.is_defocus


def test_mmpretrain_and_timm_names(image):
    for source, side in (('resnet18_8xb32_in1k', 224), (f'timm:{TIMM}', 160)):
        loaded = load_network(parse_model(source), random_weights=True)
        prepared = loaded.prepare(image)
        assert prepared.inputs.shape == (1, 3, side, side)
        assert loaded.network.run(prepared.inputs).shape == (1, 1000)
        red = prepared.picture[side // 2, :, 0].astype(int)
        assert red[-1] > 180 > 75 > red[0]  # RGB, centre


def test_weights_of_timm_networks_are_loaded_strictly(tmp_path, image):
    import timm

    torch.manual_seed(2)
    model = timm.create_model(TIMM)
    torch.save(model.state_dict(), tmp_path / 'timm.pth')
    loaded = load_network(parse_model(f'timm:{TIMM}@{tmp_path}/timm.pth'))
    assert torch.equal(loaded.network.model.head.weight, model.head.weight)
    assert loaded.classes[281].startswith('tabby')
    torch.save({'head.weight': torch.zeros(1000, 3)}, tmp_path / 'timm.pth')
    with pytest.raises(
        UsageError, match=r'timm\.pth does not fit timm:test_vit: .* missing .*head\.weight: \[1000, 3\] in the file'
    ):
        load_network(parse_model(f'timm:{TIMM}@{tmp_path}/timm.pth'))


@pytest.mark.parametrize('source', [str(CLASSIFIER), f'timm:{TIMM}'])
def test_the_size_of_the_input_can_be_changed(source, image):
    loaded = load_network(parse_model(source), random_weights=True, size=48)
    prepared = loaded.prepare(image)
    assert prepared.inputs.shape == (1, 3, 48, 48)
    assert loaded.network.run(prepared.inputs) is not None
    red = prepared.picture.astype(int)[..., 0]
    # The central square of 60 x 60 of 100 x 60 pixels.
    assert abs(red[0, 0] - 52) < 6
    assert abs(red[0, -1] - 203) < 6


@pytest.mark.parametrize(
    ('word', 'options', 'message'),
    [
        (
            f'{CLASSIFIER}',
            {},
            r'has no published weights; name a checkpoint, .*digits\.py@FILE, or use',
        ),
        ('defocus-mamba-small_in1k', {}, r'defocus-mamba-small_in1k has no published weights; name a checkpoint'),
        ('timm:deit_tiny', {}, r"timm has no network 'deit_tiny'; did you mean deit_tiny_\w+_224"),
        ('timm:rexnet50', {}, r"timm has no network 'rexnet50'; did you mean .*resnet50,"),
        ('timm:qqqqq', {}, r"timm has no network 'qqqqq'; timm\.list_models\(\) lists"),
        ('timm:resnet50.a9_in1k', {}, r"'resnet50\.a9_in1k'; it has .*resnet50\.a1_in1k"),
        ('timm:convit_tiny', dict(size=64, random_weights=True), r'takes images of one size only; omit --size'),
        ('timm:test_vit', dict(size=8, random_weights=True), r'timm:test_vit cannot take images of 8 x 8'),
        (f'{CLASSIFIER}', dict(size=0, random_weights=True), r'in pixels, at least 1, got 0'),
        (f'{CLASSIFIER}', dict(device='cuda:77', random_weights=True), r'device must be'),
    ],
)
def test_settings_that_do_not_work(word, options, message):
    with pytest.raises(UsageError, match=message):
        load_network(parse_model(word), **options)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def fail(name, pretrained=False):
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr('timm.create_model', fail)
    message = r"cannot load pretrained weights of 'test_vit' \(OSError: We couldn't connect to the hub\); name a file"
    with pytest.raises(UsageError, match=message):
        load_network(parse_model(f'timm:{TIMM}'))


def test_checkpoints_that_do_not_fit(weights, tmp_path):
    message = r'detector\.pth does not fit .*nano_digits\.py: expected weights of .*Use the config of its training'
    with pytest.raises(UsageError, match=message):
        load_network(parse_model(f'{CLASSIFIER}@{weights}/detector.pth'))
    (tmp_path / 'broken.pth').write_bytes(b'no checkpoint')
    with pytest.raises(CheckpointError, match=r'broken\.pth'):
        load_network(parse_model(f'{CLASSIFIER}@{tmp_path}/broken.pth'))
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        load_network(parse_model(f'{CLASSIFIER}@nowhere.pth'))


def test_a_model_without_tokens():
    with pytest.raises(AnalysisError, match=r'DLA has no layers that are known to give tokens'):
        load_network(parse_model('timm:dla46_c'), random_weights=True)


def test_a_config_without_a_test_set(tmp_path):
    config = tmp_path / 'model.py'
    config.write_text(f"_base_ = '{CLASSIFIER}'\ntest_dataloader = None\ntest_cfg = None\ntest_evaluator = None\n")
    with pytest.raises(UsageError, match=r'model\.py has no test_dataloader, whose pipeline prepares'):
        load_network(parse_model(str(config)), random_weights=True)


def test_a_missing_image(weights):
    loaded = load_network(parse_model(f'{CLASSIFIER}@{weights}/classifier.pth'))
    with pytest.raises(FileNotFoundError, match=r"image file 'none\.png' does not exist"):
        loaded.prepare('none.png')
