"""Stored outputs and gradients of our own De-focus ViT and RetNet: a change of the code must not change them.

`python tests/test_models/test_vit_retnet_golden.py` stores them anew, for a change that is meant to.
"""

from pathlib import Path

import pytest
import torch

from mmdefocus.models import DefocusRetNet, DefocusViT

GOLDEN = Path(__file__).parents[1] / 'golden' / 'vit_retnet.pt'
VIT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'ffn_dims': 32}
RETNET = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'value_dims': 32, 'ffn_dims': 24}
WINDOWS = {'token_order': 'window', 'pretrain_size': 16, 'rope_scale': 'auto', 'delta_scale': 'auto'}
PLAIN = {'band_pass': False, 'absolute_positions': True, 'img_size': (16, 24)}
CASES = {
    'vit': (DefocusViT, VIT, {}),
    'non-causal vit on windows': (DefocusViT, VIT, {'causal': False, **WINDOWS}),
    'plain vit': (DefocusViT, VIT, PLAIN),
    'retnet on windows': (DefocusRetNet, RETNET, WINDOWS),
}


def build(case):
    network, arch, options = CASES[case]
    return network(arch, patch_size=4, out_type='raw', **options)


def compute(backbone, image):
    """Return tokens and gradients in float64, in which the order of summation does not matter."""
    backbone = backbone.double()
    (tokens,) = backbone(image.double())
    weights = torch.linspace(-1, 1, tokens.numel(), dtype=torch.float64).reshape(tokens.shape)
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    gradients = torch.autograd.grad((tokens * weights).sum(), parameters)
    return {'tokens': tokens.detach(), **dict(zip(names, gradients, strict=True))}


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_gradients_are_the_stored_ones(case):
    stored = torch.load(GOLDEN, weights_only=True)[case]
    backbone = build(case)
    backbone.load_state_dict(stored['state_dict'])
    computed = compute(backbone, stored['image'])
    assert computed.keys() == stored['computed'].keys()
    for name, expected in stored['computed'].items():
        torch.testing.assert_close(computed[name], expected, rtol=1e-9, atol=1e-9, msg=name)


def store():
    torch.manual_seed(0)
    cases = {}
    for case in CASES:
        backbone = build(case)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        image = torch.randn(2, 3, 20, 24)
        state_dict = {name: value.clone() for name, value in backbone.state_dict().items()}
        cases[case] = {'image': image, 'state_dict': state_dict, 'computed': compute(backbone, image)}
    torch.save(cases, GOLDEN)


if __name__ == '__main__':
    store()
