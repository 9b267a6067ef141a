import pytest
import torch
from detector_options import DETECTOR
from test_golden import BFLOAT16_TOLERANCE, assert_parity
from torch.autograd.graph import saved_tensors_hooks

from mmdefocus.models import DefocusMamba
from mmdefocus.models.mixers import mamba


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ('arch', 'without_heads', 'hidden', 'with_heads'),
    [
        ('small', 24_322_944, None, 25_092_944),
        ('base', 91_112_832, None, 92_650_832),
        ('large', 317_674_240, 3072, 330_117_840),
    ],
)
def test_parameter_counts_are_those_of_the_paper(arch, without_heads, hidden, with_heads):
    with torch.device('meta'):
        backbone = DefocusMamba(arch)
        width = backbone.embed_dims
        linear = torch.nn.Linear
        head = (
            linear(width, 1000) if hidden is None else torch.nn.Sequential(linear(width, hidden), linear(hidden, 1000))
        )
    assert parameters(backbone) == without_heads
    assert parameters(backbone) + 2 * parameters(head) == with_heads


def test_nano_is_small():
    assert parameters(DefocusMamba('nano')) < 500_000


# Output forms and image sizes


@pytest.mark.parametrize('size', [(16, 16), (48, 32), (17, 50), (100, 16)])
def test_output_forms(build, size):
    image = torch.randn(2, 3, *size)
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    shapes = {'cls_token': (2, 16), 'raw': (2, rows * columns + 1, 16), 'featmap': (2, 16, rows, columns)}
    for out_type, shape in shapes.items():
        backbone = build()
        backbone.out_type = out_type
        outputs = backbone(image)
        assert isinstance(outputs, tuple)
        assert [tuple(output.shape) for output in outputs] == [shape]


def test_output_forms_show_the_same_tokens(build):
    backbone, image = build(out_type='raw'), torch.randn(2, 3, 32, 48)
    (raw,) = backbone(image)
    backbone.out_type = 'cls_token'
    assert torch.equal(backbone(image)[0], raw[:, -1])
    backbone.out_type = 'featmap'
    assert torch.equal(backbone(image)[0], raw[:, :-1].transpose(1, 2).unflatten(2, (2, 3)))


def test_images_are_padded_with_zeros_at_the_bottom_and_the_right(build):
    backbone, image = build(out_type='raw'), torch.randn(1, 3, 20, 40)
    padded = torch.zeros(1, 3, 32, 48)
    padded[..., :20, :40] = image
    assert torch.equal(backbone(image)[0], backbone(padded)[0])


def test_window_order_pads_to_windows_and_crops(build):
    backbone = build(token_order='window', pretrain_size=32, out_type='raw')
    image = torch.randn(1, 3, 33, 70)
    assert backbone(image)[0].shape == (1, 4 * 6 + 1, 16)
    backbone.out_type = 'featmap'
    assert backbone(image)[0].shape == (1, 16, 3, 5)


def test_orders_agree_on_one_window(build):
    image = torch.randn(1, 3, 48, 48)
    window = build(token_order='window', pretrain_size=48, **DETECTOR)
    assert torch.equal(window(image)[0], build(**DETECTOR)(image)[0])


def test_class_token_sees_the_image_and_no_token_sees_it(build):
    backbone, image = build(out_type='raw'), torch.randn(1, 3, 32, 32, requires_grad=True)
    (tokens,) = backbone(image)
    (gradient,) = torch.autograd.grad(tokens[:, -1].square().sum(), image, retain_graph=True)
    assert (gradient.abs().amax(1).unflatten(1, (2, 16)).unflatten(3, (2, 16)).amax((2, 4)) > 0).all()
    (gradient,) = torch.autograd.grad(tokens[:, :-1].sum(), backbone.cls_token)
    assert not gradient.any()


def test_first_token_sees_its_own_patch_only(build):
    backbone, image = build(**DETECTOR), torch.randn(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(backbone(image)[0][..., 0, 0].square().sum(), image)
    assert gradient[..., :16, :16].abs().sum() > 0
    assert not gradient[..., 16:, :].any()
    assert not gradient[..., :, 16:].any()


def test_other_channel_counts_and_patch_sizes(toy_arch):
    backbone = DefocusMamba(toy_arch, img_size=(8, 24), patch_size=8, in_channels=5, **DETECTOR)
    assert backbone(torch.randn(1, 5, 20, 24))[0].shape == (1, 16, 3, 3)


# Scales


def scales_seen(backbone, image, monkeypatch):
    seen = []
    scan = mamba.defocus_scan
    monkeypatch.setattr(mamba, 'defocus_scan', lambda *args, **kwargs: seen.append(kwargs) or scan(*args, **kwargs))
    backbone(image)
    monkeypatch.undo()
    delta_scale, positions = seen[0]['delta_scale'], seen[0]['positions']
    return float(1 / positions[1]), delta_scale


@pytest.mark.parametrize(
    ('token_order', 'size', 'padded'), [('raster', (30, 64), (32, 64)), ('window', (30, 70), (32, 96))]
)
def test_auto_scales_follow_the_padded_image(build, monkeypatch, token_order, size, padded):
    backbone = build(token_order=token_order, pretrain_size=32, rope_scale='auto', delta_scale='auto')
    rope_scale, delta_scale = scales_seen(backbone, torch.randn(1, 3, *size), monkeypatch)
    area_ratio = padded[0] * padded[1] / 32**2
    assert rope_scale == pytest.approx(area_ratio, rel=1e-6)
    assert delta_scale == pytest.approx(area_ratio**0.5, rel=1e-6)


def test_auto_scales_are_one_at_the_pretraining_size(build):
    image = torch.randn(1, 3, 64, 64)
    auto = build(pretrain_size=64, rope_scale='auto', delta_scale='auto')
    assert torch.equal(auto(image)[0], build()(image)[0])


def test_fixed_scales_reach_the_mixer(build, monkeypatch):
    backbone = build(rope_scale=20.0, delta_scale=4.57)
    assert scales_seen(backbone, torch.randn(1, 3, 32, 32), monkeypatch) == (pytest.approx(20.0), 4.57)


# Training


def test_drop_path_rises_linearly_and_can_be_set_later(toy_arch):
    backbone = DefocusMamba(toy_arch | {'num_layers': 5}, drop_path_rate=0.4)
    assert [block.drop_path.drop_prob for block in backbone.layers] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    image = torch.randn(1, 3, 16, 16)
    for block in backbone.layers:
        block.drop_path.drop_prob = 0.999999
    assert not torch.equal(backbone.train()(image)[0], backbone.eval()(image)[0])


def test_one_block_has_no_drop_path(toy_arch):
    backbone = DefocusMamba(toy_arch | {'num_layers': 1}, drop_path_rate=0.4)
    assert backbone.layers[0].drop_path.drop_prob == 0


def test_every_parameter_receives_a_gradient(build):
    backbone = build()
    backbone(torch.randn(2, 3, 32, 48))[0].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def saved_bytes_and_gradients(backbone, image):
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = backbone(image)[0].square().sum()
    loss.backward()
    given = {tensor.untyped_storage().data_ptr() for tensor in (image, *backbone.parameters())}
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    return sum(size for pointer, size in saved.items() if pointer not in given), gradients


def test_checkpointing_saves_memory_and_keeps_gradients(toy_arch):
    arch, image = toy_arch | {'num_layers': 8, 'inner_dims': 64}, torch.randn(4, 3, 64, 64)
    bytes_and_gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = DefocusMamba(arch, drop_path_rate=0.5, with_cp=with_cp).train()
        bytes_and_gradients.append(saved_bytes_and_gradients(backbone, image))
    (plain_bytes, plain), (few_bytes, recomputed) = bytes_and_gradients
    assert few_bytes < plain_bytes / 4
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_checkpointing_under_autocast_keeps_gradients(build):
    image = torch.randn(2, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        _, plain = saved_bytes_and_gradients(build(), image)
        _, recomputed = saved_bytes_and_gradients(build(with_cp=True), image)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


@pytest.mark.parametrize(
    ('stages', 'frozen'),
    [
        (-1, set()),
        (0, {'cls_token', 'patch_embed'}),
        (1, {'cls_token', 'patch_embed', 'layers.0'}),
        (2, {'cls_token', 'patch_embed', 'layers.0', 'layers.1', 'norm'}),
    ],
)
def test_frozen_stages(build, stages, frozen):
    backbone = build(frozen_stages=stages, drop_path_rate=0.5).train()
    for name, parameter in backbone.named_parameters():
        is_frozen = any(name == part or name.startswith(f'{part}.') for part in frozen)
        assert parameter.requires_grad is not is_frozen, name
    modules = dict(backbone.named_modules())
    for part in {'patch_embed', 'layers.0', 'layers.1', 'norm'}:
        assert modules[part].training is (part not in frozen)


def test_frozen_blocks_can_be_checkpointed(build):
    backbone = build(frozen_stages=1, with_cp=True)
    backbone(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert backbone.layers[0].mixer.D.grad is None
    assert backbone.layers[1].mixer.D.grad is not None


def test_layer_depths(build):
    backbone = build()
    depths = {
        'cls_token': 0,
        'patch_embed.projection.weight': 0,
        'layers.0.mixer.D': 1,
        'layers.1.norm.weight': 2,
        'norm.bias': 3,
    }
    for name, depth in depths.items():
        assert backbone.get_layer_depth(name) == (depth, 4)
        assert backbone.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (depth, 4)
    assert backbone.get_layer_depth('head.fc.weight', prefix='backbone.') == (3, 4)


# Precision


def test_residual_and_norms_are_float32_under_autocast(build):
    backbone = build(out_type='raw')
    residuals, norms = [], []
    for block in backbone.layers:
        block.register_forward_hook(lambda module, inputs, output: residuals.append(output.dtype))
        block.norm.register_forward_hook(lambda module, inputs, output: norms.append((module, *inputs, output)))
    with torch.autocast('cpu', torch.bfloat16):
        (tokens,) = backbone(torch.randn(1, 3, 32, 32))
    assert set(residuals) == {torch.float32}
    assert tokens.dtype == torch.float32
    # The projection would round the norm; it is rounded once, from float32.
    assert len(norms) == len(backbone.layers)
    assert all(torch.equal(output, norm(tokens).bfloat16()) for norm, tokens, output in tuple(norms))


@pytest.mark.parametrize(('blocks_in_fp32', 'dtype'), [(False, torch.bfloat16), (True, torch.float32)])
@pytest.mark.parametrize('out_type', ['raw', 'featmap'])
def test_blocks_run_in_float32_under_autocast_on_request(build, out_type, blocks_in_fp32, dtype):
    backbone = build(**DETECTOR | {'out_type': out_type, 'blocks_in_fp32': blocks_in_fp32})
    dtypes = []
    backbone.layers[1].mixer.x_proj.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        backbone(torch.randn(1, 3, 32, 32))
    assert dtypes == [dtype]


def test_float64(build):
    image = torch.randn(1, 3, 32, 48)
    (exact,) = build().double()(image.double())
    assert exact.dtype == torch.float64
    assert_parity(build()(image)[0], exact.float(), 'float32')


def test_bfloat16_parameters(build):
    image = torch.randn(1, 3, 32, 48)
    (rough,) = build().bfloat16()(image.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert_parity(rough.float(), build()(image)[0], 'bfloat16 parameters', BFLOAT16_TOLERANCE)


def test_nan_comes_out_as_nan(build):
    image = torch.randn(2, 3, 32, 32)
    image[1, 0, 20, 20] = float('nan')
    (tokens,) = build(out_type='raw')(image)
    assert not tokens[0].isnan().any()
    assert not tokens[1, :3].isnan().any()
    assert tokens[1, 3:].isnan().all()


# Bad input


@pytest.mark.parametrize(
    ('image', 'error', 'message'),
    [
        (torch.randn(3, 32, 32), ValueError, r'shape \(batch, 3, height, width\), got \(3, 32, 32\)'),
        (torch.randn(1, 1, 32, 32), ValueError, r'shape \(batch, 3, height, width\), got \(1, 1, 32, 32\)'),
        (torch.randn(1, 3, 15, 32), ValueError, r'at least one patch \(16 x 16 pixels\), got 15 x 32'),
        (torch.randn(1, 3, 32, 0), ValueError, r'at least one patch \(16 x 16 pixels\), got 32 x 0'),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, 'floating-point images, got torch.uint8; normalise'),
    ],
)
def test_images_that_do_not_fit_are_refused(build, image, error, message):
    with pytest.raises(error, match=message):
        build()(image)


@pytest.mark.parametrize(
    'changes',
    [
        {'with_cp': True},
        {
            **DETECTOR,
            'token_order': 'window',
            'pretrain_size': 32,
            'rope_scale': 'auto',
            'delta_scale': 'auto',
        },
    ],
    ids=['class token', 'feature map'],
)
def test_compiles_without_graph_breaks(build, changes):
    backbone, image = build(**changes), torch.randn(2, 3, 40, 64)
    compiled = torch.compile(backbone, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(image)[0], backbone(image)[0])
    compiled(image)[0].square().sum().backward()
    assert backbone.layers[0].mixer.freq.grad.any()


def test_exports_with_a_dynamic_batch(build):
    backbone, image = build().eval(), torch.randn(2, 3, 40, 64)
    batch = torch.export.Dim('batch', min=1)
    exported = torch.export.export(backbone, (image,), dynamic_shapes=({0: batch},)).module()
    more = torch.randn(5, 3, 40, 64)
    torch.testing.assert_close(exported(more)[0], backbone(more)[0])
