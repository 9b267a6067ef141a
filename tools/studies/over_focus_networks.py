"""The twelve networks of handwritten digits that tools/compare_over_focus.py trains and compares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .ablation import Variant

_CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
# Without the band-pass, attention and retention need absolute positions.
_PLAIN: dict[str, Any] = {'model.backbone.band_pass': False, 'model.backbone.absolute_positions': True}
_MIXERS: dict[str, tuple[str, dict[str, Any]]] = {
    'Mamba': ('mamba', {'model.backbone.rotary': False}),
    'ViT': ('vit', _PLAIN),
    'RetNet': ('retnet', _PLAIN),
}
METRIC = 'accuracy/top1'
# A shorter training than that of the configs, without intermediate evaluations.
SCHEDULE = {'train_cfg.max_epochs': 10, 'train_cfg.val_interval': 10}


def network_variants() -> list[Variant]:
    """Return every mixer with and without band-pass, with and without auxiliary loss."""
    variants = []
    for name, (mixer, plain) in _MIXERS.items():
        config = _CONFIGS / f'defocus_{mixer}_nano_digits.py'
        for band_pass in (True, False):
            for auxiliary in (True, False):
                settings = ({} if band_pass else plain) | ({} if auxiliary else {'model.head.aux': None})
                variants.append(Variant(_label(name, band_pass, auxiliary), config, settings))
    return variants


def change_pairs(networks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return, for every change, the networks with and without it, as far as both are among the given ones."""
    pairs = {}
    for name in _MIXERS:
        for auxiliary in (True, False):
            context = '' if auxiliary else ', without auxiliary loss'
            pairs[f'band-pass in {name}{context}'] = (_label(name, True, auxiliary), _label(name, False, auxiliary))
        for band_pass in (True, False):
            context = '' if band_pass else ', without band-pass'
            pairs[f'auxiliary loss in {name}{context}'] = (
                _label(name, band_pass, True),
                _label(name, band_pass, False),
            )
    return {row: pair for row, pair in pairs.items() if set(pair) <= set(networks)}


def _label(name: str, band_pass: bool, auxiliary: bool) -> str:
    without = [part for part, used in (('band-pass', band_pass), ('auxiliary loss', auxiliary)) if not used]
    return f'{name}, without {" and ".join(without)}' if without else f'De-focus {name}'
