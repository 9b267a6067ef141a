"""Spectra of the band-pass: learned half-lives and centre frequencies of layers and heads, against the initial ones.

Shapes: B images, L tokens, K heads or groups of channels, M pairs of channels of a head, or channels and states of a
group, P pairs or states with a frequency.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone
from mmdefocus.models.mixers import AttentionMixer, MambaMixer, RetentionMixer, TokenMixer
from mmdefocus.models.positions import token_positions

from .errors import AnalysisError
from .eval_mode import eval_mode
from .networks import TokenNetwork, open_network


@dataclass(frozen=True)
class LayerSpectrum:
    """The band-pass of a layer, at the resolution in use. All tensors are float64 on the CPU.

    Attributes:
        layer: Index of the layer, from 0.
        name: Name of its module.
        half_lives: Distance in tokens at which the decay is 1/2, (K, M).
        initial_half_lives: The same before the training, (K, M).
        frequencies: Centre frequencies in radians per token, (K, P); (1, P) in Mamba, whose groups share them; None for
            a band-pass without them.
        initial_frequencies: The same before the training.
    """

    layer: int
    name: str
    half_lives: Tensor
    initial_half_lives: Tensor
    frequencies: Tensor | None
    initial_frequencies: Tensor | None


@torch.no_grad()
def band_pass_spectra(
    model: nn.Module | TokenNetwork, images: Tensor | None = None, layers: Sequence[int] | None = None
) -> list[LayerSpectrum]:
    """Return learned and initial half-lives and frequencies of the band-pass (section 3 of arXiv 2406.04342).

    In attention and retention, the decay of a pair of channels is exp(−λ |t − s|) and its half-life ln 2 / λ, with
    λ = exp(``log_decay``) / ``delta_scale``. In Mamba, the decay of a state from one token to the next is
    exp(−Δ exp(``A_log``)), where Δ depends on the token: the half-life is ln 2 / (Δ exp(``A_log``)), with Δ of a
    channel averaged over all tokens of the images, or without images at the bias, softplus(``dt_proj.bias``) /
    ``delta_scale``. Frequencies are ``freq`` / ``rope_scale``.

    Initial values are those of a copy of the mixer after ``reset_parameters``, in Mamba with Δ at the bias. They do not
    depend on chance. Without images, scales that depend on the image are for the backbone's ``img_size``.

    Args:
        model: Network of this package.
        images: Normalised images (B, 3, height, width); None for the parameters alone.
        layers: Indices of layers; None for all.

    Returns:
        One spectrum per layer with a band-pass.

    Raises:
        AnalysisError: A layer does not exist, or no layer has a band-pass.
    """
    network = open_network(model)
    indices = list(dict.fromkeys(network.select(layers)))
    found = {index: _band_pass_mixer(network.layers[index]) for index in indices}
    mixers = {index: mixer for index, mixer in found.items() if mixer is not None}
    backbone = network.backbone
    if not mixers or not isinstance(backbone, DefocusBackbone):
        raise AnalysisError(
            f'{type(backbone).__name__} has no band-pass in layers {indices}; expected a De-focus network, or a plain '
            'Mamba for its decays alone'
        )
    size = backbone.img_size if images is None else images.shape[-2:]
    unit = backbone.patch_size * (backbone.window or 1)
    rope_scale, delta_scale = backbone.scales_at(*(-(-side // unit) * unit for side in size))
    steps = {} if images is None else _mean_steps(network, images, mixers, delta_scale)
    spectra = []
    for index, mixer in mixers.items():
        initial = _initial_copy(mixer)
        half_lives, frequencies = _spectrum(mixer, rope_scale, delta_scale, steps.get(index))
        initial_half_lives, initial_frequencies = _spectrum(initial, rope_scale, delta_scale, None)
        spectra.append(
            LayerSpectrum(
                index, network.layer_names[index], half_lives, initial_half_lives, frequencies, initial_frequencies
            )
        )
    return spectra


def _band_pass_mixer(layer: nn.Module) -> TokenMixer | None:
    mixer = getattr(layer, 'mixer', None)
    if isinstance(mixer, AttentionMixer | RetentionMixer):
        return None if mixer.band_pass is None else mixer
    return mixer if isinstance(mixer, MambaMixer) else None


def _initial_copy(mixer: TokenMixer) -> TokenMixer:
    initial = copy.deepcopy(mixer)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # the weights are drawn, too
        initial.reset_parameters()
    return initial


def _spectrum(
    mixer: TokenMixer, rope_scale: float, delta_scale: float, step: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return half-lives (K, M) and frequencies (K, P) of a mixer."""
    if isinstance(mixer, MambaMixer):
        if step is None:
            step = F.softplus(mixer.dt_proj.bias.double()) / delta_scale  # (E)
        decay = step[:, None] * mixer.A_log.double().exp()  # (E, N)
        freq = None if mixer.freq is None else mixer.freq.double()[None] / rope_scale
        return math.log(2) / decay.unflatten(0, (-1, mixer.group_size)).flatten(1).cpu(), _on_cpu(freq)
    assert isinstance(mixer, AttentionMixer | RetentionMixer)
    assert mixer.band_pass is not None
    decay, freq = mixer.band_pass(token_positions(2, rope_scale, like=mixer.band_pass.freq.double()), delta_scale)
    return math.log(2) / decay.double().cpu(), _on_cpu(freq)


def _on_cpu(freq: Tensor | None) -> Tensor | None:
    return None if freq is None else freq.double().cpu()


def _mean_steps(
    network: TokenNetwork, images: Tensor, mixers: dict[int, TokenMixer], delta_scale: float
) -> dict[int, Tensor]:
    """Return Δ of every channel (E), averaged over images and tokens, of the layers with a Mamba mixer."""
    steps: dict[int, Tensor] = {}
    with _recorded_steps(mixers, steps, delta_scale), eval_mode(network.model):
        network.run(images)
    return steps


@contextmanager
def _recorded_steps(mixers: dict[int, TokenMixer], steps: dict[int, Tensor], delta_scale: float) -> Iterator[None]:
    handles = []
    for index, mixer in mixers.items():
        if isinstance(mixer, MambaMixer):

            def store(_: nn.Module, args: tuple, output: Tensor, index: int = index, mixer: MambaMixer = mixer) -> None:
                step = F.linear(output[..., : mixer.dt_rank].float(), mixer.dt_proj.weight.float())  # (B, L, E)
                steps[index] = (F.softplus(step + mixer.dt_proj.bias.float()) / delta_scale).double().mean((0, 1))

            handles.append(mixer.x_proj.register_forward_hook(store))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
