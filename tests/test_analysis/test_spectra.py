"""Spectra of the band-pass."""

import json
import math

import pytest
import timm
import torch

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.spectra import band_pass_spectra
from mmdefocus.analysis.spectra_report import draw_spectra, spectra_json, spectra_markdown
from mmdefocus.models import DefocusMamba, DefocusRetNet, DefocusViT
from mmdefocus.models.positions import initial_frequencies

SETTINGS = dict(arch='nano', img_size=16, patch_size=4)
FAMILIES = pytest.mark.parametrize('family', [DefocusMamba, DefocusViT, DefocusRetNet])


def network(family, **changes):
    torch.manual_seed(0)
    return family(**{**SETTINGS, **changes})


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@FAMILIES
def test_an_untrained_network_has_the_initial_spectrum(family):
    spectra = band_pass_spectra(network(family))
    assert [spectrum.layer for spectrum in spectra] == [0, 1, 2, 3]
    assert spectra[2].name == 'layers.2'
    for spectrum in spectra:
        torch.testing.assert_close(spectrum.half_lives, spectrum.initial_half_lives)
        torch.testing.assert_close(spectrum.frequencies, spectrum.initial_frequencies)
        torch.testing.assert_close(spectrum.frequencies[0], initial_frequencies(16).double())
        assert spectrum.half_lives.shape[0] == 3


def test_half_lives_of_attention():
    model = network(DefocusViT, delta_scale=2.0, rope_scale=4.0)
    with torch.no_grad():
        model.layers[1].mixer.band_pass.log_decay[2, 5] = math.log(math.log(2) / 30)
        model.layers[1].mixer.band_pass.freq[2, 5] = 0.5
    (spectrum,) = band_pass_spectra(model, layers=[1])
    assert spectrum.half_lives[2, 5].item() == pytest.approx(60)
    assert spectrum.frequencies[2, 5].item() == pytest.approx(0.125)
    assert spectrum.initial_half_lives[:, 0].tolist() == pytest.approx([8, 256, 8192])
    assert spectrum.initial_frequencies[2, 5].item() == pytest.approx(initial_frequencies(16)[5].item() / 4)


def test_half_lives_of_mamba():
    model = network(DefocusMamba)
    mixer = model.layers[0].mixer
    with torch.no_grad():
        mixer.A_log[70, 3] = math.log(5.0)
        mixer.dt_proj.bias[70] = math.log(math.expm1(0.02))  # softplus gives Δ = 0.02
    spectrum = band_pass_spectra(model)[0]
    # Channel 70 is the seventh of the second group of 64, with 16 states per channel.
    assert spectrum.half_lives.shape == (3, 64 * 16)
    assert spectrum.half_lives[1, 6 * 16 + 3].item() == pytest.approx(math.log(2) / (0.02 * 5), rel=1e-6)
    assert spectrum.initial_half_lives[1, 6 * 16 + 3].item() != pytest.approx(math.log(2) / (0.02 * 5), rel=1e-2)


def test_steps_of_mamba_averaged_over_images():
    model = network(DefocusMamba, delta_scale=2.0)
    with torch.no_grad():
        model.layers[0].mixer.dt_proj.weight.mul_(30)
    seen = []
    mixer = model.layers[0].mixer
    mixer.x_proj.register_forward_hook(lambda _, args, output: seen.append(output[..., :6].detach()))
    spectrum = band_pass_spectra(model, images())[0]
    # A literal product, token by token.
    tokens = seen[0].flatten(0, 1)
    steps = torch.stack([torch.nn.functional.softplus(mixer.dt_proj(token)) / 2 for token in tokens]).mean(0)
    expected = math.log(2) / (steps.detach().double()[:, None] * mixer.A_log.detach().double().exp())
    torch.testing.assert_close(spectrum.half_lives, expected.view(3, -1), rtol=1e-5, atol=0)
    at_bias = band_pass_spectra(model)[0]
    assert not torch.allclose(spectrum.half_lives, at_bias.half_lives, rtol=1e-3)
    torch.testing.assert_close(spectrum.initial_half_lives, at_bias.initial_half_lives)


def test_scales_of_the_images_or_of_the_nominal_size():
    model = network(DefocusViT, rope_scale='auto', delta_scale='auto', pretrain_size=8)
    nominal, large = band_pass_spectra(model)[0], band_pass_spectra(model, torch.zeros(1, 3, 32, 30))[0]
    torch.testing.assert_close(large.half_lives, 2 * nominal.half_lives)
    torch.testing.assert_close(large.frequencies, nominal.frequencies / 4)


def test_plain_networks():
    spectrum = band_pass_spectra(network(DefocusMamba, rotary=False))[0]
    assert spectrum.frequencies is None
    assert spectrum.initial_frequencies is None
    assert spectrum.half_lives.isfinite().all()
    for model in (network(DefocusViT, band_pass=False), timm.create_model('resnet18')):
        with pytest.raises(AnalysisError, match=r'has no band-pass in layers'):
            band_pass_spectra(model)


def test_nothing_is_left_behind():
    model = network(DefocusMamba).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    band_pass_spectra(model, images())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_json_and_table():
    model = network(DefocusViT)
    with torch.no_grad():
        model.layers[1].mixer.band_pass.log_decay[0] = -math.inf
    spectra = band_pass_spectra(model, layers=[1])
    (layer,) = json.loads(spectra_json(spectra), parse_constant=pytest.fail)['layers']
    assert (layer['layer'], layer['name'], layer['half_lives'][0]) == (1, 'layers.1', [None] * 16)
    assert layer['initial_half_lives'][1] == pytest.approx([128] * 16)
    lines = spectra_markdown(spectra).splitlines()
    assert len(lines) == 2 + 3
    assert lines[3] == (
        '| 1 | 1 | 128.0 [128.0, 128.0] → 128.0 [128.0, 128.0] | 0.078 [0.006, 0.487] → 0.078 [0.006, 0.487] |'
    )
    mamba = spectra_markdown(band_pass_spectra(network(DefocusMamba), layers=[0])).splitlines()
    assert mamba[2].split('|')[4] == mamba[4].split('|')[4]


@pytest.mark.parametrize('rotary', [True, False])
def test_figure(rotary, tmp_path):
    spectra = band_pass_spectra(network(DefocusMamba, rotary=rotary))
    draw_spectra(spectra, tmp_path / 'all.png')
    draw_spectra(spectra[:1], tmp_path / 'one.png')
    assert (tmp_path / 'all.png').read_bytes() != (tmp_path / 'one.png').read_bytes()
