"""Colours of maps and curves, the same on the page and in the pictures, told apart with every kind of colour vision."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

DECADES = 4  # below the largest value, on a logarithmic scale


def magnitudes() -> 'Colormap':
    """Return the sequential colours of values that are not negative."""
    from matplotlib import colormaps

    return colormaps['viridis']


def signed() -> 'Colormap':
    """Return the diverging colours of signed values: blue below zero, orange above, almost white at zero."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ('#08306b', '#2b6cb0', '#8fbce6', '#f4f4f2', '#f9b878', '#d8701a', '#7a2f04')
    return LinearSegmentedColormap.from_list('blue_orange', stops)


def table(colours: 'Colormap') -> np.ndarray:
    """Return 255 colours (255, 3), uint8: an odd number, so that one of them is that of zero."""
    return np.rint(255 * colours(np.linspace(0, 1, 255))[:, :3]).astype(np.uint8)
