"""Small networks with values away from their initial ones, and what their mixers receive and return."""

import torch
import torch.nn.functional as F

from mmdefocus.models import DefocusMamba, DefocusRetNet, DefocusViT

MAMBA = {
    'embed_dims': 8,
    'num_layers': 2,
    'inner_dims': 12,
    'state_dims': 4,
    'conv_kernel': 3,
    'dt_rank': 2,
    'group_size': 6,
}
VIT = {'embed_dims': 8, 'num_layers': 2, 'num_heads': 2, 'ffn_dims': 8}
RETNET = {'embed_dims': 8, 'num_layers': 2, 'num_heads': 2, 'value_dims': 12, 'ffn_dims': 8}
PLAIN = {'band_pass': False, 'absolute_positions': True}
NETWORKS = {
    'mamba': (DefocusMamba, MAMBA, {}),
    'mamba without rotary': (DefocusMamba, MAMBA, {'rotary': False}),
    'vit': (DefocusViT, VIT, {}),
    'non-causal vit': (DefocusViT, VIT, {'causal': False}),
    'plain vit': (DefocusViT, VIT, PLAIN),
    'retnet': (DefocusRetNet, RETNET, {}),
    'plain retnet': (DefocusRetNet, RETNET, PLAIN),
}
# Networks and what their maps can include.
CASES = [(kind, ()) for kind in NETWORKS]
CASES += [('mamba', ('gate',)), ('mamba', ('conv',)), ('mamba', ('conv', 'gate')), ('retnet', ('gate',))]


def build(kind, dtype=torch.float64, **changes):
    """Build a network for images of 8 × 8 pixels with patches of 2, so that they have 17 tokens."""
    network, arch, options = NETWORKS[kind]
    torch.manual_seed(0)
    model = network(arch, **({'img_size': 8, 'patch_size': 2} | options | changes))
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def images_of(height=8, width=8, dtype=torch.float64, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def watch(model, images, layer):
    """Run a network; return the inputs of the layer's mixer, and the inputs and outputs of its projections by name."""
    mixer = model.layers[layer].mixer
    seen, handles = {}, []
    for name, module in [('mixer', mixer), *mixer.named_children()]:

        def store(module, args, output, name=name):
            seen[name] = (args, output)

        handles.append(module.register_forward_hook(store))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return mixer, seen


def layer_values(model, images, layer, include):
    """Return the values on which the maps act, and the layer's output before its projection, both (B, L, E)."""
    mixer, seen = watch(model, images, layer)
    output = seen['out_proj'][0][0]
    x = seen['mixer'][0][0]
    if hasattr(mixer, 'qkv'):
        return seen['qkv'][1].chunk(3, -1)[2], output
    if hasattr(mixer, 'v_proj'):
        return seen['v_proj'][1], output
    return (
        (F.linear(x, mixer.in_proj.weight.chunk(2)[0]), output) if 'conv' in include else (seen['x_proj'][0][0], output)
    )
