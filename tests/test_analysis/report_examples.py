"""Reports of invented networks that behave like real ones, for tests of the page and of the pictures.

Shapes: L tokens, K heads, R and W rows and columns of the image's token grid.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from mmdefocus.analysis.report_data import LayerReport, NetworkReport
from mmdefocus.analysis.token_layout import OUTSIDE, TokenLayout
from mmdefocus.models.token_order import image_to_sequence

MEANINGS = {
    'entropy': 'Entropy of the rows divided by the logarithm of the visible tokens: 1 is even, 0 is one token.',
    'sink rate': 'Share of the heads with a token whose column mean exceeds 0.3.',
}
WINDOW_NETWORK = 'De-focus Mamba, windows'
CAUSAL_NETWORK = 'Causal ViT <script>alert(1)</script>'


def photograph(rows: int, columns: int, patch: int = 16) -> np.ndarray:
    """Return scikit-learn's photograph of a flower, resized to a number of patches, (H, W, 3), uint8."""
    image = Image.fromarray(load_sample_image('flower.jpg')[:, 60:600])
    return np.asarray(image.resize((columns * patch, rows * patch)))


def window_layout(rows: int, columns: int, window: int) -> TokenLayout:
    """Return causal tokens in window order, padded to whole windows, with the class token last."""
    grid = (-(-rows // window) * window, -(-columns // window) * window)
    order = image_to_sequence(torch.arange(grid[0] * grid[1]).view(1, *grid, 1), window).flatten()
    return TokenLayout(grid, torch.cat((order, torch.tensor([OUTSIDE]))), (rows, columns), len(order), causal=True)


def raster_layout(rows: int, columns: int, causal: bool, class_token: bool = True) -> TokenLayout:
    """Return tokens in raster order with the class token last if causal, and first otherwise."""
    cells, extra = torch.arange(rows * columns), torch.full((int(class_token),), OUTSIDE)
    position = (len(cells) if causal else 0) if class_token else None
    return TokenLayout(
        (rows, columns), torch.cat((cells, extra) if causal else (extra, cells)), (rows, columns), position, causal
    )


def invented_attention(layout: TokenLayout, heads: int, focus: float, signed: bool, seed: int) -> Tensor:
    """Return rows (K, L, L) that mix nearness in the image with noise and, by ``focus``, a sink; 0 where invisible."""
    generator = torch.Generator().manual_seed(seed)
    columns = layout.grid[1]
    inside = layout.cells != OUTSIDE
    places = torch.stack((layout.cells // columns, layout.cells % columns), -1).double()
    places[~inside] = torch.tensor([layout.grid[0] / 2, layout.grid[1] / 2], dtype=torch.double)
    distances = torch.cdist(places, places)  # (L, L)
    widths = torch.linspace(1.5, 5, heads, dtype=torch.double)[:, None, None]
    noise = 0.7 * torch.randn(heads, 1, layout.length, generator=generator, dtype=torch.double)
    logits = -distances / widths + noise  # (K, L, L)
    logits[..., int(0.3 * layout.length)] += 7 * focus
    rows = logits.masked_fill(~layout.visible_mask(), -torch.inf).softmax(-1)
    if signed:
        rows = rows * torch.cos(distances / widths * 1.3)
    return rows.float()


def invented_network(
    label: str,
    layout: TokenLayout,
    image_name: str,
    layers: Sequence[int],
    layer_count: int,
    heads: int = 3,
    signed: bool = False,
    focus: float = 1.0,
    all_queries: bool = True,
    seed: int = 0,
) -> NetworkReport:
    """Return the report of a network whose attention focuses more on a sink from layer to layer."""
    rows, columns = layout.image_grid
    centre = layout.token_at(rows // 2, columns // 2)
    reports, rollout = [], torch.eye(layout.length)
    scores: dict[str, list[Tensor]] = {'entropy': [], 'sink rate': []}
    for index in layers:
        maps = invented_attention(layout, heads, focus * (index + 1) / layer_count, signed, seed + index)
        mean = maps.abs().mean(0)
        step = mean + torch.eye(layout.length)
        rollout = step / step.sum(-1, keepdim=True) @ rollout
        gradient_queries = [centre, layout.length - 1]
        queries = list(range(layout.length)) if all_queries else gradient_queries
        gradient = 3 * mean[gradient_queries].sqrt()
        reports.append(
            LayerReport(
                index,
                f'layers.{index}',
                layout,
                queries,
                maps[:, queries],
                mean,
                rollout[queries],
                gradient_queries=gradient_queries,
                gradient=gradient,
                class_gradient=5 * rollout[-1],
                receptive_fields=layout.to_grid(rollout[gradient_queries] ** 2),
            )
        )
        shares = maps.abs() / maps.abs().sum(-1, keepdim=True)
        visible = layout.visible_mask().sum(-1).double()
        entropy = torch.special.entr(shares).sum(-1)[:, 1:] / visible.log()[1:]
        scores['entropy'].append(entropy.mean(-1))
        scores['sink rate'].append((shares.mean(-2) > 0.02).float().mean(-1))
    return NetworkReport(
        label,
        'configs/invented.py, random weights',
        image_name,
        photograph(rows, columns),
        reports,
        scores,
        '7 (0.98)',
        layer_count=layer_count,
    )


def network_without_attention(image_name: str, layers: int = 3) -> NetworkReport:
    """Return the report of a convolutional network: gradients alone, on a grid that becomes coarser."""
    reports = []
    for index in range(layers):
        side = 8 >> index
        layout = raster_layout(side, side, causal=False, class_token=False)
        centre = layout.token_at(side // 2, side // 2)
        cells = torch.arange(side * side).float()
        gradient = torch.exp(-(cells - centre).abs() / side)[None]
        note = 'no attention: the layer is a convolution'
        reports.append(
            LayerReport(
                index,
                f'layer{index + 1}',
                layout,
                [],
                attention_note=note,
                gradient_queries=[centre],
                gradient=gradient,
                class_gradient=gradient[0],
            )
        )
    scores = {'entropy': [torch.full((1,), torch.nan)] * layers}
    notes = ['no receptive fields: not requested']
    return NetworkReport('ResNet', 'timm:resnet50', image_name, photograph(8, 8), reports, scores, notes=notes)


def example_reports(image_name: str = 'flower.png') -> list[NetworkReport]:
    """Return three networks: window order with padding, signed; causal with another grid; one without attention."""
    return [
        invented_network(WINDOW_NETWORK, window_layout(5, 7, 3), image_name, [0, 1, 2, 3], 4, signed=True, focus=0.2),
        invented_network(CAUSAL_NETWORK, raster_layout(6, 8, causal=True), image_name, [1, 3, 5], 6, heads=2, seed=9),
        network_without_attention(image_name),
    ]
