"""The skeleton that all De-focus backbones share: everything but the token mixer.

Shapes: B batch, H and W rows and columns of the token grid, L tokens (class token included), C embed_dims.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..absolute_positions import AbsolutePositions
from ..checkpoint.names import is_official, rename_official
from ..checkpoint.resolution import Scale
from ..feed_forward import FeedForward, GatedFeedForward
from ..mixers import TokenMixer
from ..norms import LayerNorm, RMSNorm
from ..positions import token_positions
from ..precision import at_least_float32, autocast_off
from ..token_order import image_to_sequence, sequence_to_image
from .checkpoint_hooks import add_checkpoint_hooks
from .pretrained import load_pretrained, split_pretrained

TOKEN_ORDERS = ('raster', 'window')
OUT_TYPES = ('raw', 'cls_token', 'featmap')
BLOCK_NORM_EPS = 1e-5


class DefocusBlock(nn.Module):
    """Pre-norm residual block, (B, L, C) → (B, L, C), residual at least float32.

    x ← x + DropPath(mixer(RMSNorm(x))), then, if there is a feed-forward network, x ← x + DropPath(ffn(RMSNorm(x))).

    Args:
        mixer: Maps tokens to tokens.
        embed_dims: C.
        drop_path_rate: Probability of dropping a branch for a sample in training; ``drop_path.drop_prob`` may be
            changed later.
        ffn: Maps the channels of every token; None for a block of the mixer alone.
    """

    def __init__(
        self,
        mixer: TokenMixer,
        embed_dims: int,
        drop_path_rate: float,
        ffn: FeedForward | GatedFeedForward | None = None,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path_rate)
        self.ffn_norm = None if ffn is None else RMSNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.ffn = ffn

    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""
        for part in (self.norm, self.mixer, self.ffn_norm, self.ffn):
            if part is not None:
                part.reset_parameters()

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Map tokens (B, L, C) to tokens; ``positions`` (L,) and ``delta_scale`` go to the mixer."""
        mixed = self.mixer(self.norm(x), positions, delta_scale)
        x = x + self.drop_path(mixed.to(x.dtype))
        if self.ffn is None or self.ffn_norm is None:
            return x
        return x + self.drop_path(self.ffn(self.ffn_norm(x)).to(x.dtype))


class DefocusBackbone(BaseModule):
    """Patch embedding, token order, class token last, blocks, final norm and outputs (sections 3 and 4 of the paper).

    Images of any size from one patch up are accepted. They are padded with zeros at the bottom and the right: in
    raster order to a multiple of ``patch_size``, in window order to a multiple of ``pretrain_size``. Padding tokens
    take part in the sequence.

    Args:
        make_mixer: Called once per block, returns the block's mixer.
        embed_dims: C.
        num_layers: Number of blocks.
        make_ffn: Called once per block, returns the block's feed-forward network; None for blocks without one.
        absolute_positions: Whether every cell of the token grid of ``img_size`` has a learned vector that is added to
            its token, for networks without a band-pass. It is resized to other grids.
        img_size: Nominal side, or (height, width), of the input in pixels. The network takes any other size as well.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        token_order: ``'raster'`` (row by row) or ``'window'`` (window by window, each of the pretraining's size).
        pretrain_size: Image side of the pretraining in pixels, a multiple of ``patch_size``; needed by window order
            and by the scale ``'auto'``.
        rope_scale: Divides token positions. ``'auto'`` is (s / pretrain_size)², where s = sqrt(height · width) of the
            padded image: the ratio of the numbers of tokens. None is 1 until weights are loaded, and then what the
            published rule makes of the image size that they were trained at (``docs/checkpoints.md``).
        delta_scale: Divides step sizes. ``'auto'`` is s / pretrain_size; None as for ``rope_scale``.
        drop_path_rate: Drop path of the last block; it grows linearly from 0 at the first one.
        final_norm_eps: Epsilon of the final layer norm; 1e-6 in the published classifiers, 1e-5 in the detectors.
        out_type: ``'cls_token'``: (B, C). ``'raw'``: the whole sequence (B, L, C) in token order, padding tokens
            included, class token last. ``'featmap'``: (B, C, ceil(height / patch_size), ceil(width / patch_size));
            here the blocks run without autocast, as detectors need.
        with_cp: Recompute the blocks in the backward pass instead of keeping their activations.
        frozen_stages: -1 freezes nothing, 0 patch embedding, positions and class token, k also the first k blocks, and
            ``num_layers`` also the final norm.
        init_cfg: MMEngine's initialisation, applied after the published initial values. A checkpoint in it
            (``type='Pretrained'``) may be of the backbone or a whole model, ours or an official one, and must have the
            whole backbone.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        make_mixer: Callable[[], TokenMixer],
        embed_dims: int,
        num_layers: int,
        make_ffn: Callable[[], FeedForward | GatedFeedForward] | None = None,
        absolute_positions: bool = False,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        token_order: str = 'raster',
        pretrain_size: int | None = None,
        rope_scale: Scale | None = None,
        delta_scale: Scale | None = None,
        drop_path_rate: float = 0.0,
        final_norm_eps: float = 1e-6,
        out_type: str = 'cls_token',
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        by_rule, self.pretrained = split_pretrained(init_cfg)
        super().__init__(init_cfg=by_rule)
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if len(self.img_size) != 2 or min(self.img_size) < patch_size:
            raise ValueError(
                f'img_size must be a side or (height, width) of at least one patch ({patch_size} pixels), '
                f'got {img_size}'
            )
        _check_choice('token_order', token_order, TOKEN_ORDERS)
        _check_choice('out_type', out_type, OUT_TYPES)
        _check_pretrain_size(pretrain_size, patch_size, token_order, rope_scale, delta_scale)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')
        if not -1 <= frozen_stages <= num_layers:
            raise ValueError(f'frozen_stages must be from -1 to num_layers ({num_layers}), got {frozen_stages}')

        self.embed_dims = embed_dims
        self.num_layers = num_layers
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

        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.patch_embed = PatchEmbed(in_channels, embed_dims, kernel_size=patch_size, stride=patch_size, padding=0)
        grid = (-(-self.img_size[0] // patch_size), -(-self.img_size[1] // patch_size))
        self.pos_embed = AbsolutePositions(embed_dims, grid) if absolute_positions else None
        rates = [drop_path_rate * i / max(num_layers - 1, 1) for i in range(num_layers)]
        self.layers = nn.ModuleList(
            DefocusBlock(make_mixer(), embed_dims, rate, make_ffn() if make_ffn else None) for rate in rates
        )
        self.norm = LayerNorm(embed_dims, eps=final_norm_eps)
        self._reset_stem()
        self._freeze_stages()
        add_checkpoint_hooks(self)

    def init_weights(self) -> None:
        """Set the published initial values, then what ``init_cfg`` asks for (such as a checkpoint).

        Raises:
            CheckpointError: A checkpoint of ``init_cfg`` cannot be used, or is not one of this backbone.
        """
        if self.is_init:
            return
        self._reset_stem()
        for block in self.layers:
            assert isinstance(block, DefocusBlock)
            block.reset_parameters()
        self.norm.reset_parameters()
        super().init_weights()
        for part in self.pretrained:
            load_pretrained(self, part)
        if not self.pretrained:
            print_log(f'{type(self).__name__} starts from random weights: its init_cfg names no checkpoint', 'current')

    def _reset_stem(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            self.pos_embed.reset_parameters()
        projection = self.patch_embed.projection
        projection.reset_parameters()
        # Published detectors and classifiers differ here. The bias must not be 0: padding tokens would be exactly 0 in
        # all blocks, where the gradient of RMSNorm grows by 1 / sqrt(eps) per block until it overflows.
        if self.out_type == 'featmap':
            nn.init.normal_(projection.weight, std=math.sqrt(2 / (self.patch_size**2 * self.embed_dims)))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Compute the output named by ``out_type``.

        Args:
            images: (B, in_channels, height, width), floating point, already normalised.

        Returns:
            One tensor in a tuple; see ``out_type``.

        Raises:
            TypeError: The images are not floating point.
            ValueError: Wrong rank or number of channels, or an image smaller than a patch.
        """
        self._check_images(images)
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

        with autocast_off(images.device) if self.out_type == 'featmap' else nullcontext():
            for block in self.layers:
                if self.with_cp and torch.is_grad_enabled():
                    sequence = checkpoint(block, sequence, positions, delta_scale, use_reentrant=False)
                else:
                    sequence = block(sequence, positions, delta_scale)
        sequence = self.norm(sequence)

        if self.out_type == 'cls_token':
            return (sequence[:, -1],)
        if self.out_type == 'raw':
            return (sequence,)
        grid_tokens = sequence_to_image(sequence[:, :-1], grid, self.window)  # (B, H, W, C)
        rows, columns = -(-height // self.patch_size), -(-width // self.patch_size)
        return (grid_tokens[:, :rows, :columns].permute(0, 3, 1, 2).contiguous(),)

    def scales_at(self, height: int, width: int) -> tuple[float, float]:
        """Numbers for ``rope_scale`` and ``delta_scale`` at a padded image of ``height`` × ``width`` pixels."""
        ratio = height * width / self.pretrain_size**2 if self.pretrain_size else 1.0
        rope_scale = ratio if self.rope_scale == 'auto' else self.rope_scale
        delta_scale = math.sqrt(ratio) if self.delta_scale == 'auto' else self.delta_scale
        return rope_scale, delta_scale

    @staticmethod
    def _checkpoint_filter(state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
        """Rename an official state dict before MMPreTrain's ``ImageClassifier`` loads it, heads included."""
        own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
        if is_official(own):
            for key in own:
                del state_dict[prefix + key]
            state_dict.update({prefix + key: value for key, value in rename_official(own).items()})

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay.

        Args:
            param_name: Name of the parameter, with ``prefix``.
            prefix: Name of the backbone in the model, such as ``'backbone.'``.

        Returns:
            (depth, count): 0 for patch embedding, positions and class token, 1 … num_layers for the blocks and
            count - 1 = num_layers + 1 for the final norm and everything outside the backbone.
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

    def train(self, mode: bool = True) -> 'DefocusBackbone':
        """Set training mode, but keep frozen stages in evaluation mode (no drop path in them)."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stem = [self.patch_embed] if self.pos_embed is None else [self.patch_embed, self.pos_embed]
        modules = [*stem, *self.layers[: self.frozen_stages]]
        return [*modules, self.norm] if self.frozen_stages == self.num_layers else modules

    def _freeze_stages(self) -> None:
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f'expected images of shape (batch, {self.in_channels}, height, width), got {tuple(images.shape)}'
            )
        if not images.is_floating_point():
            raise TypeError(
                f'expected floating-point images, got {images.dtype}; normalise them first (data_preprocessor)'
            )
        if min(images.shape[-2:]) < self.patch_size:
            raise ValueError(
                f'expected images of at least one patch ({self.patch_size} x {self.patch_size} pixels), '
                f'got {images.shape[-2]} x {images.shape[-1]}; resize or pad them'
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} must be one of {list(choices)}, got {value!r}')


def _check_pretrain_size(
    pretrain_size: int | None,
    patch_size: int,
    token_order: str,
    rope_scale: Scale | None,
    delta_scale: Scale | None,
) -> None:
    for name, scale in (('rope_scale', rope_scale), ('delta_scale', delta_scale)):
        if scale not in ('auto', None) and (isinstance(scale, str) or not 0 < scale < math.inf):
            raise ValueError(f"{name} must be a positive number, 'auto' or None, got {scale!r}")
        if scale == 'auto' and pretrain_size is None:
            raise ValueError(f"{name}='auto' needs pretrain_size, the image side of the pretraining in pixels")
    if token_order == 'window' and pretrain_size is None:
        raise ValueError("token_order='window' needs pretrain_size, the image side of the pretraining in pixels")
    if pretrain_size is not None and (pretrain_size < patch_size or pretrain_size % patch_size):
        raise ValueError(f'pretrain_size must be a positive multiple of patch_size ({patch_size}), got {pretrain_size}')
