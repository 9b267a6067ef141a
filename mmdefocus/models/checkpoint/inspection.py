"""What network a state dict is of, what it lacks, and a report on it."""

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..backbones import DefocusMamba
from ..heads import DefocusClsHead
from ..necks import SimpleFeaturePyramid
from .resolution import Resolution


def arch_of(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    """The complete ``arch`` of the backbone that a state dict of ours must be of, by the sizes of its tensors.

    Raises:
        ValueError: A key from which a size is read is missing.
    """
    first = 'backbone.layers.0.mixer.'
    needed = ('backbone.cls_token', *(first + name for name in ('A_log', 'conv1d.weight', 'dt_proj.weight')))
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise ValueError(f'the state dict has no {", ".join(missing)}, which every De-focus Mamba has')
    inner_dims, state_dims = state_dict[first + 'A_log'].shape
    return dict(
        embed_dims=state_dict['backbone.cls_token'].shape[-1],
        num_layers=len({key.split('.')[2] for key in state_dict if key.startswith('backbone.layers.')}),
        inner_dims=inner_dims,
        state_dims=state_dims,
        conv_kernel=state_dict[first + 'conv1d.weight'].shape[-1],
        dt_rank=state_dict[first + 'dt_proj.weight'].shape[-1],
        group_size=inner_dims,  # no tensor depends on it
    )


def expected_model(state_dict: Mapping[str, Tensor]) -> nn.ModuleDict:
    """The network that a state dict of ours must be of, by the sizes of its tensors.

    Args:
        state_dict: State dict of a classifier, a detector or a part of one with a backbone.

    Returns:
        ``backbone``, and ``head`` and ``neck`` where there is any key of them, on the ``meta`` device. The other parts
        of a detector are not looked at.

    Raises:
        ValueError: A key from which a size is read is missing.
    """
    arch = arch_of(state_dict)
    projection = state_dict.get('backbone.patch_embed.projection.weight')
    _, channels, side, _ = (0, 3, 16, 16) if projection is None else projection.shape
    with torch.device('meta'):
        model = nn.ModuleDict()
        model['backbone'] = DefocusMamba(
            arch,
            img_size=side,
            patch_size=side,
            in_channels=channels,
            rotary='backbone.layers.0.mixer.freq' in state_dict,
        )
        if any(key.startswith('head.') for key in state_dict):
            model['head'] = _head(state_dict, arch['embed_dims'])
        if any(key.startswith('neck.') for key in state_dict):
            levels = [key for key in state_dict if key.startswith('neck.fpn_convs.') and key.endswith('.conv.weight')]
            out_channels = len(state_dict[levels[0]]) if levels else 256
            model['neck'] = SimpleFeaturePyramid(arch['embed_dims'], out_channels, len(levels) or 4)
    return model


def _head(state_dict: Mapping[str, Tensor], in_channels: int) -> DefocusClsHead:
    hidden = state_dict.get('head.fc.0.weight')
    last = state_dict.get('head.fc.weight' if hidden is None else 'head.fc.2.weight')
    num_classes = 1000 if last is None else len(last)
    return DefocusClsHead(num_classes, in_channels, None if hidden is None else len(hidden), loss=nn.Identity())


def missing_and_misshapen(state_dict: Mapping[str, Tensor], model: nn.ModuleDict) -> list[str]:
    """Keys of ``model`` that a state dict lacks or has in another shape, each with its shape in the model."""
    return [
        f'{key} {tuple(value.shape)}'
        for key, value in model.state_dict().items()
        if key not in state_dict or state_dict[key].shape != value.shape
    ]


def report(state_dict: Mapping[str, Tensor], other_names: Mapping[str, str], link: str) -> str:
    """Describe a state dict of ours that was made from an official one, or the other way round.

    Args:
        state_dict: State dict of ours.
        other_names: The names in the official one, by our names. Those of what was dropped may be among them.
        link: What stands between both names, such as ``'from'``.

    Returns:
        Lines on the network, the image size of its training, and the tensors: how many of a kind, name, shape, dtype
        and other name. Layers share a line, with ``*`` for their number.
    """
    arch = arch_of(state_dict)
    parameters = sum(value.numel() for value in state_dict.values())
    lines = [
        f'network    {_arch_name(arch)}: embed_dims {arch["embed_dims"]}, {arch["num_layers"]} layers',
        *_resolution_lines(Resolution.from_metadata(getattr(state_dict, '_metadata', {}).get('backbone', {}))),
        f'keys       {len(state_dict)} mapped, {parameters:,} parameters',
    ]
    rows = Counter(
        (
            _numberless(key),
            str(tuple(value.shape)),
            str(value.dtype).removeprefix('torch.'),
            _numberless(other_names[key]),
        )
        for key, value in state_dict.items()
    )
    lines += [
        f'{count:>6}  {key:<44} {shape:<16} {dtype:<8} {link} {other}'
        for (key, shape, dtype, other), count in rows.items()
    ]
    dropped = sorted({_numberless(other) for key, other in other_names.items() if key not in state_dict})
    return '\n'.join([*lines, f'dropped    {", ".join(dropped) or "none"}'])


def _numberless(key: str) -> str:
    return re.sub(r'\b(layers|blocks|lateral_convs|fpn_convs|cls_branches|reg_branches)\.\d+', r'\1.*', key)


def _arch_name(arch: Mapping[str, int]) -> str:
    known = DefocusMamba.arch_zoo.items()
    names = (name for name, sizes in known if {**sizes, 'group_size': arch['group_size']} == arch)
    return next((f'arch {name!r}' for name in names), 'an arch without a name')


def _resolution_lines(trained: Resolution | None) -> list[str]:
    if trained is None or trained.is_detector:
        return []
    ratio = 1024 / trained.height
    return [
        f'trained at {trained.height} x {trained.width} pixels, rope_scale {trained.rope_scale:g}, '
        f'delta_scale {trained.delta_scale:g}',
        f'           a detector with pretrain_size={trained.height} sets its scales by the published rule: at '
        f'1024 x 1024 pixels rope_scale {ratio**2:.4g}, delta_scale {ratio:.4g}',
    ]
