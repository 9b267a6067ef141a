"""The token mixer of FCViT on its own: formula of the similarity, precision, arguments and initial values."""

import math

import pytest
import torch
from torch import nn

from mmdefocus.models.map_mixers.global_context import GlobalContext, GlobalContextMixer


def make_context(channels=16, num_heads=4, dtype=torch.float64):
    """Return a global context with random values in all parameters."""
    torch.manual_seed(0)
    context = GlobalContext(channels, num_heads)
    for parameter in context.parameters():
        nn.init.normal_(parameter)
    return context.to(dtype)


@torch.no_grad()
def test_similarity_of_every_pixel_with_the_mean():
    context = make_context()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    for sample, similarity in zip(x, context.similarity(x), strict=True):
        logits = torch.empty(4, 3, 5, dtype=torch.float64)
        for head in range(4):
            part = sample[4 * head : 4 * head + 4]
            mean = torch.stack([channel.mean() for channel in part])
            for row in range(3):
                for column in range(5):
                    logits[head, row, column] = torch.dot(part[:, row, column], mean) / math.sqrt(4)
        variance = ((logits - logits.mean()) ** 2).sum() / (logits.numel() - 1)
        expected = (logits - logits.mean()) / (variance.sqrt() + 1e-5)
        expected = expected * context.rescale_weight[:, None, None] + context.rescale_bias[:, None, None]
        torch.testing.assert_close(similarity, expected)


@torch.no_grad()
def test_the_context_is_the_similarity_times_a_vector_of_the_sample():
    context, seen = make_context(), []
    original = context.similarity
    context.similarity = lambda x: seen.append(original(x)) or seen[-1]
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    y = context(x).unflatten(1, (4, 4))
    (similarity,) = seen
    hidden = torch.stack([x.mean((2, 3)) @ part.T for part in context.fc1.weight.chunk(2)])
    hidden = (hidden + context.fc1.bias.view(2, 1, 2)).amax(0)
    vector = (hidden @ context.fc2.weight.T + context.fc2.bias).unflatten(1, (4, 4))
    torch.testing.assert_close(y, torch.einsum('bkhw,bki->bkihw', similarity, vector))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_similarity_in_half_precision(dtype):
    context = make_context(dtype=dtype)
    x = (200 + 20 * torch.randn(1, 16, 24, 24)).to(dtype)  # its products with the mean overflow float16
    similarity = context.similarity(x)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, context.double().similarity(x.double()).float(), rtol=1e-3, atol=1e-3)
    assert context.to(dtype)(x).dtype == dtype
    assert context(x).isfinite().all()


@torch.no_grad()
def test_autocast_does_not_change_the_similarity():
    context = make_context(dtype=torch.float32)
    x = torch.randn(1, 16, 8, 8)
    with torch.autocast('cpu', torch.bfloat16):
        similarity, y = context.similarity(x), context(x)
    assert similarity.dtype == y.dtype == torch.float32
    assert torch.equal(similarity, context.similarity(x))
    torch.testing.assert_close(y, context(x), rtol=0.05, atol=0.05)


def test_gradients():
    context = make_context(8, 2)
    names, parameters = zip(*context.named_parameters(), strict=True)
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64, requires_grad=True)

    def forward(x, *values):
        return torch.func.functional_call(context, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(forward, (x, *parameters))


def test_one_head_on_one_pixel_is_finite():
    context = make_context(num_heads=1)
    x = torch.randn(2, 16, 1, 1, dtype=torch.float64, requires_grad=True)
    similarity = context.similarity(x)  # nothing to compare with: the learned shift remains
    torch.testing.assert_close(similarity, context.rescale_bias.expand_as(similarity))
    context(x).sum().backward()
    assert x.grad.isfinite().all()


def test_a_constant_map_has_finite_values_and_gradients():
    context = make_context()
    x = torch.zeros(1, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    y = context(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in context.parameters())


@torch.no_grad()
def test_kernel_sizes_of_the_mixer():
    torch.manual_seed(0)
    mixer = GlobalContextMixer(16, (3, 5), num_heads=2)
    assert [mixer.dw1.weight.shape, mixer.dw2.weight.shape] == [(16, 1, 3, 3), (16, 1, 5, 5)]
    assert mixer(torch.randn(1, 16, 1, 7)).shape == (1, 16, 1, 7)


@pytest.mark.parametrize(('channels', 'hidden'), [(32, 16), (128, 16), (160, 20), (320, 40), (512, 64)])
def test_width_of_the_bottleneck(channels, hidden):
    with torch.device('meta'):
        mixer = GlobalContextMixer(channels)
    assert mixer.fc1[0].out_channels == mixer.fc2[2].in_channels == hidden


def test_arguments():
    with pytest.raises(ValueError, match=r'channels must be a multiple of 8 and of num_heads=8, got 20'):
        GlobalContext(20)
    with pytest.raises(ValueError, match=r'channels must be a multiple of 8 and of num_heads=3, got 32'):
        GlobalContext(32, num_heads=3)
    with pytest.raises(ValueError, match=r'kernel_sizes must be two odd numbers, got \(11, 10\)'):
        GlobalContextMixer(32, (11, 10))
    with pytest.raises(ValueError, match=r'kernel_sizes must be two odd numbers, got \(11,\)'):
        GlobalContextMixer(32, (11,))


def test_initial_values():
    torch.manual_seed(0)
    mixer = GlobalContextMixer(320)
    for parameter in mixer.parameters():
        nn.init.constant_(parameter, 7)
    mixer.reset_parameters()
    expected = {
        'dw1.weight': math.sqrt(2 / 121),
        'fc1.0.weight': math.sqrt(2 / 40),
        'fc1.2.weight': math.sqrt(2 / 320),
        'gc1.fc1.weight': 0.02,
        'gc1.fc2.weight': 0.02,
    }
    for name, std in expected.items():
        for copy in (name, name.replace('1', '2', 1)):
            weight = mixer.get_parameter(copy)
            assert weight.mean().abs() < 5 * std / weight.numel() ** 0.5, copy
            assert weight.std().item() == pytest.approx(std, rel=4 / weight.numel() ** 0.5), copy
    assert all((context.rescale_weight == 1).all() for context in (mixer.gc1, mixer.gc2))
    assert all((value == 0).all() for name, value in mixer.named_parameters() if name.endswith('bias'))
