"""The trained detector of handwritten digits that is part of the package, and pictures that it has not seen."""

from pathlib import Path

FOLDER = Path(__file__).parent / 'example'
# Weights of configs/dino/defocus_mamba_nano_digits.py, with its config; tools/make_example_checkpoint.py writes it.
CHECKPOINT = FOLDER / 'defocus_mamba_nano_digits.pth'


def example_images() -> list[Path]:
    """Return the files of the pictures, sorted by name: 160 x 160 pixels, of the validation set of the demo."""
    return sorted(FOLDER.glob('*.jpg'))
