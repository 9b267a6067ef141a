"""The skeleton of plain backbones: a sequence of image tokens and a class token, a token mixer in every block.

Shapes: B batch, H and W rows and columns of the token grid, L tokens (class token included), C embed_dims.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..absolute_positions import AbsolutePositions
from ..checkpoint.resolution import Scale
from ..feed_forward import FeedForwardNetwork
from ..mixers import TokenMixer
from ..norms import LayerNorm
from ..positions import token_positions
from ..precision import at_least_float32, autocast_off
from ..token_order import image_to_sequence, sequence_to_image
from .arch import arch_sizes
from .arguments import (
    check_choice,
    check_drop_path_rate,
    check_images,
    check_scales,
    image_sides,
    refuse_unknown,
    require_for_feature_map,
)
from .block import DefocusBlock
from .name_hooks import translate_official_names
from .scale_hooks import add_scale_hooks
from .vision_backbone import VisionBackbone

TOKEN_ORDERS = ('raster', 'window')
OUT_TYPES = ('raw', 'cls_token', 'featmap')
PATCH_EMBED_INITS = ('default', 'kaiming_normal')
SCALE_RULES = ('nominal', 'per_image')


class DefocusBackbone(VisionBackbone):
    """Patch embedding, token order, class token last, blocks and final norm (sections 3 and 4 of arXiv 2406.04342).

    A subclass gives ``arch_zoo``, whose entries have at least the keys ``embed_dims`` and ``num_layers``, and
    implements :meth:`make_mixer` and, for blocks with a feed-forward network, :meth:`make_ffn`. Its constructor stores
    its own arguments and passes all others to this one.

    Images may have any size from one patch up. They are padded with zeros at the bottom and the right: in raster order
    to a multiple of ``patch_size``, in window order to a multiple of ``pretrain_size``. Padding tokens take part in
    the sequence.

    Args:
        arch: A name in ``arch_zoo``, or a dict with exactly the keys of its entries.
        img_size: Nominal side, or (height, width), of the input in pixels. The network accepts any other size as well.
        patch_size: Side of a patch in pixels.
        in_channels: Number of channels of the image.
        token_order: ``'raster'`` (row by row) or ``'window'`` (window by window, each of the pretraining's size).
        pretrain_size: Image side of the pretraining in pixels, a multiple of ``patch_size``. Window order and the
            scale ``'auto'`` need it.
        absolute_positions: If True, add a learned vector per cell of the token grid to the image tokens. Networks
            without a band-pass need it. The vectors are for the grid of ``img_size`` and are resized to other grids.
        rope_scale: Divides token positions. ``'auto'`` is (s / pretrain_size)², the ratio of the numbers of tokens,
            where s = sqrt(height · width) of the padded image. None is 1 until weights are loaded; then ``scale_rule``
            determines it.
        delta_scale: Divides step sizes and decays. ``'auto'`` is s / pretrain_size; None as for ``rope_scale``.
        drop_path_rate: Drop path rate of the last block. The rate grows linearly from 0 at the first block.
        final_norm_eps: Epsilon of the final layer norm: 1e-6 in the published classifiers, 1e-5 in the detectors.
        out_type: Output. ``'cls_token'``: (B, C). ``'raw'``: the whole sequence (B, L, C) in token order, padding
            tokens included, class token last. ``'featmap'``: (B, C, ceil(height / patch_size),
            ceil(width / patch_size)); it needs explicit values of the next three arguments.
        blocks_in_fp32: If True, run the blocks without autocast, as in the published detectors. Default: False, as in
            the published classifiers.
        patch_embed_init: Initial weight of the patch embedding. ``'default'`` (default, published classifiers): as in
            PyTorch's ``Conv2d``. ``'kaiming_normal'`` (published detectors): normal with variance
            2 / (patch_size² · C), Kaiming's rule for the fan-out.
        scale_rule: Determines scales that are None when weights are loaded (``docs/checkpoints.md``). ``'nominal'``
            (default, published classifiers): numbers, from the ratio of ``img_size`` to the checkpoint's image size.
            ``'per_image'`` (published detectors): ``'auto'``, from the ratio of each padded image to the checkpoint's
            image size.
        token_map: If True, the image tokens that enter the last block pass through the module ``token_map`` as a map
            (B, C, ceil(height / patch_size), ceil(width / patch_size)), without padding tokens. It changes nothing, but
            tools that read the maps of a layer, such as MMPreTrain's ``vis_cam.py``, can hook it.
        with_cp: If True, recompute the blocks in the backward pass instead of keeping their activations.
        frozen_stages: -1 freezes nothing, 0 patch embedding, absolute positions and class token, k also the first k
            blocks, and ``num_layers`` also the final norm.
        init_cfg: MMEngine's initialisation, applied after the published initial values. A checkpoint in it
            (``type='Pretrained'``) may hold the backbone or a whole model, in the naming of this package or the
            official one, and must contain every tensor of the backbone.

    Raises:
        TypeError: If an argument is unknown, or if ``arch`` is neither a name nor a dict.
        ValueError: If an argument is outside its range, if ``arch`` has missing or unknown keys, or if
            ``out_type='featmap'`` comes without the three arguments that it needs.
    """

    def __init__(
        self,
        arch: str | Mapping[str, int],
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        token_order: str = 'raster',
        pretrain_size: int | None = None,
        *,
        absolute_positions: bool = False,
        rope_scale: Scale | None = None,
        delta_scale: Scale | None = None,
        drop_path_rate: float = 0.0,
        final_norm_eps: float = 1e-6,
        out_type: str = 'cls_token',
        blocks_in_fp32: bool | None = None,
        patch_embed_init: str | None = None,
        scale_rule: str | None = None,
        token_map: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(init_cfg)
        sizes = arch_sizes(arch, self.arch_zoo)
        self.embed_dims, self.num_layers = sizes['embed_dims'], sizes.pop('num_layers')
        self.img_size = image_sides(img_size, patch_size)
        check_choice('token_order', token_order, TOKEN_ORDERS)
        check_choice('out_type', out_type, OUT_TYPES)
        if out_type == 'featmap':
            require_for_feature_map(
                blocks_in_fp32=blocks_in_fp32, patch_embed_init=patch_embed_init, scale_rule=scale_rule
            )
        self.blocks_in_fp32 = bool(blocks_in_fp32)
        self.patch_embed_init = patch_embed_init or 'default'
        self.scale_rule = scale_rule or 'nominal'
        check_choice('patch_embed_init', self.patch_embed_init, PATCH_EMBED_INITS)
        check_choice('scale_rule', self.scale_rule, SCALE_RULES)
        check_scales(rope_scale, delta_scale, token_order, pretrain_size, patch_size)
        check_drop_path_rate(drop_path_rate)
        if not -1 <= frozen_stages <= self.num_layers:
            raise ValueError(f'frozen_stages must be from -1 to num_layers ({self.num_layers}), got {frozen_stages}')

        self.patch_size = patch_size
        self.in_channels = in_channels
        self.pretrain_size = pretrain_size
        self.window = pretrain_size // patch_size if token_order == 'window' and pretrain_size else None
        self.rope_scale = 1.0 if rope_scale is None else rope_scale
        self.delta_scale = 1.0 if delta_scale is None else delta_scale
        self.scales_follow_checkpoint = (rope_scale is None, delta_scale is None)
        self.out_type = out_type
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages

        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self.patch_embed = PatchEmbed(
            in_channels, self.embed_dims, kernel_size=patch_size, stride=patch_size, padding=0
        )
        grid = (-(-self.img_size[0] // patch_size), -(-self.img_size[1] // patch_size))
        self.pos_embed = AbsolutePositions(self.embed_dims, grid) if absolute_positions else None
        rates = [drop_path_rate * i / max(self.num_layers - 1, 1) for i in range(self.num_layers)]
        self.layers = nn.ModuleList(
            DefocusBlock(self.make_mixer(sizes), self.embed_dims, rate, self.make_ffn(sizes)) for rate in rates
        )
        self.token_map = nn.Identity() if token_map else None
        self.norm = LayerNorm(self.embed_dims, eps=final_norm_eps)
        self._reset_stem()
        self.freeze_stages()
        add_scale_hooks(self)

    @abstractmethod
    def make_mixer(self, sizes: dict[str, int]) -> TokenMixer:
        """Build the token mixer of one block; called once per block from the constructor.

        Args:
            sizes: Entries of ``arch`` except ``num_layers``.
        """

    def make_ffn(self, sizes: dict[str, int]) -> FeedForwardNetwork | None:
        """Build the feed-forward network of one block; None, the default, for blocks without one."""
        return None

    def reset_parameters(self) -> None:
        self._reset_stem()
        for block in self.layers:
            assert isinstance(block, DefocusBlock)
            block.reset_parameters()
        self.norm.reset_parameters()

    def _reset_stem(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            self.pos_embed.reset_parameters()
        projection = self.patch_embed.projection
        # The bias must not start from 0: padding tokens would be exactly 0 in all blocks, where the gradient of RMSNorm
        # grows by 1 / sqrt(eps) per block until it overflows.
        projection.reset_parameters()
        if self.patch_embed_init == 'kaiming_normal':
            nn.init.normal_(projection.weight, std=math.sqrt(2 / (self.patch_size**2 * self.embed_dims)))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Compute the output selected by ``out_type``.

        Args:
            images: (B, in_channels, height, width), floating point, normalised.

        Returns:
            One tensor in a tuple; see ``out_type``.

        Raises:
            TypeError: If the images are not floating point.
            ValueError: If the rank or the number of channels is wrong, or if an image is smaller than a patch.
        """
        check_images(images, self.in_channels, self.patch_size)
        height, width = images.shape[-2:]
        unit = self.patch_size * (self.window or 1)
        images = F.pad(images, (0, -width % unit, 0, -height % unit))
        rope_scale, delta_scale = self.scales_at(images.shape[-2], images.shape[-1])

        tokens, grid = self.patch_embed(images)
        tokens = at_least_float32(tokens).unflatten(1, grid)  # (B, H, W, C)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed(grid)
        sequence = image_to_sequence(tokens, self.window)  # (B, H * W, C)
        cls_token = self.cls_token.to(sequence.dtype).expand(sequence.shape[0], -1, -1)
        sequence = torch.cat((sequence, cls_token), dim=1)  # (B, L, C)
        positions = token_positions(sequence.shape[1], rope_scale, like=sequence)

        with autocast_off(images.device) if self.blocks_in_fp32 else nullcontext():
            for block in self.layers:
                if self.token_map is not None and block is self.layers[-1]:
                    sequence = self._pass_token_map(sequence, grid, (height, width))
                if self.with_cp and torch.is_grad_enabled():
                    sequence = checkpoint(block, sequence, positions, delta_scale, use_reentrant=False)
                else:
                    sequence = block(sequence, positions, delta_scale)
        sequence = self.norm(sequence)

        if self.out_type == 'cls_token':
            return (sequence[:, -1],)
        if self.out_type == 'raw':
            return (sequence,)
        return (self._image_tokens(sequence, grid, (height, width)).permute(0, 3, 1, 2).contiguous(),)

    def _image_tokens(self, sequence: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return the tokens that show the image of ``size`` pixels, without padding, (B, rows, columns, C)."""
        rows, columns = (-(-side // self.patch_size) for side in size)
        return sequence_to_image(sequence[:, :-1], grid, self.window)[:, :rows, :columns]

    def _pass_token_map(self, sequence: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        assert self.token_map is not None
        image = self.token_map(self._image_tokens(sequence, grid, size).permute(0, 3, 1, 2))  # (B, C, rows, columns)
        tokens = sequence_to_image(sequence[:, :-1], grid, self.window).clone()  # (B, H, W, C)
        tokens[:, : image.shape[2], : image.shape[3]] = image.permute(0, 2, 3, 1)
        return torch.cat((image_to_sequence(tokens, self.window), sequence[:, -1:]), dim=1)

    @property
    def num_extra_tokens(self) -> '_NoNumber':
        """What ``vis_cam.py --vit-like`` of MMPreTrain would cut off the front: an object that refuses its use.

        The property itself does not raise: ``torch.jit.trace`` reads all attributes.
        """
        return _NoNumber(type(self).__name__)

    def scales_at(self, height: int, width: int) -> tuple[float, float]:
        """Return ``rope_scale`` and ``delta_scale`` as numbers for a padded image of ``height`` × ``width`` pixels."""
        ratio = height * width / self.pretrain_size**2 if self.pretrain_size else 1.0
        rope_scale = ratio if self.rope_scale == 'auto' else self.rope_scale
        delta_scale = math.sqrt(ratio) if self.delta_scale == 'auto' else self.delta_scale
        return rope_scale, delta_scale

    # MMPreTrain's ImageClassifier calls it before it loads a state dict.
    _checkpoint_filter = staticmethod(translate_official_names)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter for layer-wise learning-rate decay.

        Args:
            param_name: Name of the parameter, with ``prefix``.
            prefix: Name of the backbone in the model, such as ``'backbone.'``.

        Returns:
            (depth, count): 0 for patch embedding, absolute positions and class token, 1 … num_layers for the blocks
            and count - 1 = num_layers + 1 for the final norm and everything outside the backbone.
        """
        count = self.num_layers + 2
        if not param_name.startswith(prefix):
            return count - 1, count
        name = param_name[len(prefix) :]
        if name == 'cls_token' or name.startswith(('patch_embed.', 'pos_embed.')):
            return 0, count
        if name.startswith('layers.'):
            return int(name.split('.')[1]) + 1, count
        return count - 1, count

    def describe_size(self, weights: Mapping[str, Tensor]) -> str:
        size = dict(
            embed_dims=weights['cls_token'].shape[-1] if 'cls_token' in weights else None,
            num_layers=len({name.split('.')[1] for name in weights if name.startswith('layers.')}),
        )
        archs = self.arch_zoo.items()
        name = next((name for name, arch in archs if all(arch.get(key) == value for key, value in size.items())), None)
        return (
            f'{f"arch={name!r}" if name else "another arch"} '
            f'(embed_dims={size["embed_dims"]}, num_layers={size["num_layers"]})'
        )

    def stage_parts(self) -> list[list[nn.Module | nn.Parameter]]:
        positions = [] if self.pos_embed is None else [self.pos_embed]
        stages = [[self.cls_token, self.patch_embed, *positions], *([block] for block in self.layers)]
        stages[-1].append(self.norm)
        return stages


class _NoNumber:
    """Raises a RuntimeError when it is used as a number."""

    def __init__(self, network: str) -> None:
        self.network = network

    def __index__(self) -> int:
        raise RuntimeError(
            f'{self.network} has its class token last, and its image tokens may be in window order, which '
            'vis_cam.py --vit-like does not know: leave --vit-like out, and give it --cfg-options '
            'model.backbone.token_map=True --target-layers backbone.token_map'
        )

    def __gt__(self, other: object) -> bool:
        return self.__index__() > 0
