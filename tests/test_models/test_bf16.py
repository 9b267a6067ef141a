"""Training under bfloat16 autocast, at the sequence lengths of 224 and 384 pixels."""

from collections import defaultdict

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

from mmdefocus.models import DefocusClsHead, DefocusMamba
from mmdefocus.models.mixers import mamba
from mmdefocus.ops import available_backends

BACKENDS = [name for name, reason in available_backends().items() if reason is None]
ARCH = {
    'embed_dims': 32,
    'num_layers': 3,
    'inner_dims': 64,
    'state_dims': 16,
    'conv_kernel': 4,
    'dt_rank': 4,
    'group_size': 64,
}
CLASSES = 5
PRODUCTS = {'mm', 'bmm', 'addmm', 'convolution'}
MOVES = {
    '_to_copy',
    '_unsafe_view',
    'cat',
    'clone',
    'detach',
    'expand',
    'slice',
    'split',
    'split_with_sizes',
    't',
    'transpose',
    'unbind',
    'view',
}


def make_model():
    torch.manual_seed(0)
    loss = {'type': 'mmpretrain.LabelSmoothLoss', 'label_smooth_val': 0.1}
    backbone = DefocusMamba(ARCH, out_type='raw', drop_path_rate=0.2)
    head = DefocusClsHead(CLASSES, ARCH['embed_dims'], loss=loss)
    model = MODELS.build({'type': 'ImageClassifier', '_scope_': 'mmpretrain', 'backbone': backbone, 'head': head})
    model.init_weights()
    return model.train()


def make_batch(side):
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    return images, [DataSample().set_gt_label(label) for label in (1, 3)]


@pytest.mark.parametrize(('side', 'length'), [(224, 197), (384, 577)])
def test_fifty_steps_stay_finite(side, length):
    model = make_model()
    images, samples = make_batch(side)
    assert model.backbone(images)[0].shape[1] == length
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(50):
        with torch.autocast('cpu', torch.bfloat16):
            total, losses = model.parse_losses(model(images, samples, mode='loss'))
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0], 'two images are learnt by heart'


class TypeRecorder(TorchDispatchMode):
    """Record the floating-point dtypes of the inputs and outputs of every operator."""

    def __init__(self):
        super().__init__()
        self.types = defaultdict(set)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in (*args, *(out if isinstance(out, (tuple, list)) else [out])):
            for tensor in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    self.types[func.overloadpacket.__name__].add(tensor.dtype)
        return out


def test_only_matrix_products_are_computed_in_bfloat16(monkeypatch):
    """The reference computes the scan with PyTorch operators, so that the updates of the state are visible."""
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    model, (images, samples) = make_model(), make_batch(64)
    with TypeRecorder() as recorder, torch.autocast('cpu', torch.bfloat16):
        model(images, samples, mode='loss')
    assert {name for name, types in recorder.types.items() if torch.bfloat16 in types} <= PRODUCTS | MOVES
    assert all(torch.bfloat16 in recorder.types[name] for name in PRODUCTS)
    # Phases, softplus, decay and state, statistics of both norms, gate and loss.
    inside = (
        'cos',
        'sin',
        'softplus',
        'exp',
        'mul',
        'add',
        'sum',
        'rsqrt',
        'native_layer_norm',
        'silu',
        '_log_softmax',
    )
    for name in inside:
        assert recorder.types[name] == {torch.float32}, name


@pytest.mark.parametrize('backend', BACKENDS)
def test_scan_is_exact_up_to_the_rounding_of_its_result(monkeypatch, backend):
    """In bfloat16, positions past 256 would be wrong, and errors of the state would add up along the sequence."""
    monkeypatch.setenv('MMDEFOCUS_BACKEND', backend)
    scan, calls = mamba.defocus_scan, []

    def record(*args, **kwargs):
        calls.append((args, kwargs, scan(*args, **kwargs)))
        return calls[-1][-1]

    monkeypatch.setattr(mamba, 'defocus_scan', record)
    model, (images, _) = make_model(), make_batch(384)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        model(images, mode='tensor')
    assert len(calls) == ARCH['num_layers']
    double = lambda value: value.double() if isinstance(value, torch.Tensor) else value  # noqa: E731
    for args, kwargs, actual in calls:
        assert actual.dtype == torch.bfloat16
        exact = scan(*map(double, args), **{name: double(value) for name, value in kwargs.items()}, backend='reference')
        torch.testing.assert_close(actual.double(), exact, rtol=2**-8, atol=1e-6)
