"""Whole networks under torch.compile, without a graph break, and torch.export, with any batch size but for DAT."""

import pytest
import torch
from detector_options import DETECTOR
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from mmdefocus.models import DAT, DefocusMamba, DefocusRetNet, DefocusViT, FCViT

MAMBA = {
    'embed_dims': 16,
    'num_layers': 2,
    'inner_dims': 32,
    'state_dims': 4,
    'conv_kernel': 4,
    'dt_rank': 3,
    'group_size': 16,
}
VIT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'ffn_dims': 32}
RETNET = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'value_dims': 32, 'ffn_dims': 24}
NETWORKS = {'mamba': (DefocusMamba, MAMBA), 'vit': (DefocusViT, VIT), 'retnet': (DefocusRetNet, RETNET)}
FCVIT = {
    'embed_dims': (8, 8, 8, 8),
    'depths': (1, 1, 1, 1),
    'mixer_ratios': (1, 1, 1, 1),
    'num_heads': 4,
    'kernel_sizes': (3, 3),
}
DAT_PLUS_PLUS = {
    'embed_dims': (8, 8, 8, 8),
    'blocks': ('N', 'D', 'N', 'D'),
    'num_heads': (2, 2, 2, 2),
    'num_groups': (1, 1, 1, 1),
    'offset_kernels': (9, 7, 5, 3),
    'offset_strides': (8, 4, 2, 1),
    'overlap_patches': True,
    'local_perception': True,
    'conv_ffn': True,
    'offset_range': -1.0,
    'reference_points': 'Hk - 1',
}
PYRAMIDS = {'fcvit': lambda: FCViT(FCVIT), 'dat': lambda: DAT(DAT_PLUS_PLUS, img_size=32)}
FEATURE_MAP = {
    **DETECTOR,
    'token_order': 'window',
    'pretrain_size': 16,
    'rope_scale': 'auto',
    'delta_scale': 'auto',
}


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build(kind='mamba', **options):
    network, arch = NETWORKS[kind]
    torch.manual_seed(0)
    return network(arch, img_size=32, patch_size=8, **options)


def images(batch=2):
    return torch.randn(batch, 3, 40, 32, generator=torch.Generator().manual_seed(1))


def run(network, module, dtype=None):
    """Return the output of the module and the gradients of all parameters of the network in it."""
    torch.manual_seed(2)  # for drop path
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        (output,) = module(images())
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output.float() * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    return output, gradients


def assert_compiles(network, dtype=None):
    compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
    output, gradients = run(network, compiled, dtype)
    expected, expected_gradients = run(network, network, dtype)
    torch.testing.assert_close(output, expected)
    for name, gradient in expected_gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[name], gradient, msg=name)


@pytest.mark.parametrize('kind', NETWORKS)
def test_a_backbone_compiles_without_graph_break(kind):
    assert_compiles(build(kind, out_type='raw'))


@pytest.mark.parametrize('kind', PYRAMIDS)
def test_a_pyramid_compiles_without_graph_break(kind):
    torch.manual_seed(0)
    assert_compiles(PYRAMIDS[kind]())


@pytest.mark.parametrize(
    ('options', 'dtype'),
    [
        ({'out_type': 'cls_token', 'drop_path_rate': 0.5}, None),
        ({'out_type': 'raw', 'with_cp': True}, None),
        (FEATURE_MAP, None),
        ({'out_type': 'raw', 'rotary': False}, torch.bfloat16),
        ({'out_type': 'raw'}, torch.bfloat16),
    ],
)
def test_options_compile_without_graph_break(options, dtype):
    assert_compiles(build(**options), dtype)


def assert_exports(module, call):
    """Assert that the exported program and `call` agree for batch sizes other than the traced one."""
    module.eval()
    dynamic = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(module, (images(),), dynamic_shapes=dynamic).module()
    for batch in (1, 5):
        with torch.no_grad():
            torch.testing.assert_close(program(images(batch)), call(images(batch)))


@pytest.mark.parametrize('options', [{'out_type': 'cls_token'}, {'out_type': 'raw'}, FEATURE_MAP])
@pytest.mark.parametrize('kind', NETWORKS)
def test_a_backbone_exports(kind, options):
    network = build(kind, **{key: value for key, value in options.items() if kind == 'mamba' or key != 'delta_scale'})
    assert_exports(network, network)


@pytest.mark.parametrize('kind', PYRAMIDS)
def test_a_pyramid_exports(kind):
    torch.manual_seed(0)
    network = PYRAMIDS[kind]()
    if kind == 'fcvit':
        assert_exports(network, network)
    else:  # the chunks of deformable attention depend on the batch size
        network.eval()
        program = torch.export.export(network, (images(),)).module()
        with torch.no_grad():
            torch.testing.assert_close(program(images()), network(images()))


@pytest.mark.parametrize('hidden_dims', [None, 12])
def test_a_classifier_exports(hidden_dims):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    head = {'type': 'DefocusClsHead', 'num_classes': 5, 'in_channels': 16, 'hidden_dims': hidden_dims}
    backbone = {'type': 'DefocusMamba', 'arch': MAMBA, 'img_size': 32, 'patch_size': 8, 'out_type': 'raw'}
    classifier = MODELS.build({'type': 'ImageClassifier', 'backbone': backbone, 'head': head})
    assert_exports(classifier, lambda x: classifier(x, mode='tensor'))
    assert classifier(images(3)).shape == (3, 5)
