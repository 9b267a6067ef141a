"""What a report shows of a network: the data of its pictures and of its page.

Shapes: L tokens, K heads or groups of channels, Q query tokens, R and W rows and columns of the image's token grid.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .token_layout import TokenLayout


@dataclass
class LayerReport:
    """One layer of a network, for one image. All tensors are float32 on the CPU.

    Attributes:
        index: Number of the layer, from 0.
        name: Name of its module.
        layout: Where the tokens that enter the layer lie.
        queries: Positions in the sequence of the query tokens that have rows below; all tokens of short sequences.
        attention: Signed rows of the queries, (K, Q, L); None without attention.
        matrix: The whole map as a picture: mean of the heads' absolute rows, reduced to at most 256 x 256; None without
            attention.
        rollout: Rows of the attention rollout up to this layer, (Q, L); None without attention.
        attention_note: Why there is no attention; empty otherwise.
        gradient_queries: Positions of the query tokens of ``gradient``.
        gradient: Norm of the gradient of the norm of a query token that leaves the layer, with respect to the tokens
            that enter it, (Q', L); None if it was not computed.
        class_gradient: Norm of the gradient of the class logit with respect to the tokens that enter the layer, (L);
            None without class logits.
        receptive_fields: Effective receptive fields of ``gradient_queries`` in the image, (Q', R0, W0), on the token
            grid of the network's input; None if they were not computed.
    """

    index: int
    name: str
    layout: TokenLayout
    queries: list[int]
    attention: Tensor | None = None
    matrix: Tensor | None = None
    rollout: Tensor | None = None
    attention_note: str = ''
    gradient_queries: list[int] = field(default_factory=list)
    gradient: Tensor | None = None
    class_gradient: Tensor | None = None
    receptive_fields: Tensor | None = None


@dataclass
class NetworkReport:
    """One network and one image.

    Attributes:
        label: Name in headings and legends.
        description: Where config and weights come from, in one line.
        image_name: Name of the image.
        image: The image as the network sees it, (height, width, 3), RGB, uint8.
        layers: The analysed layers, first to last.
        scores: By name of the score, one value per head and layer: {score: [values (K) of every layer]}; NaN where a
            score does not exist. The formulas are in :mod:`mmdefocus.analysis.scores`.
        predicted: Text about the predicted class, such as ``'7 (0.98)'``; empty without one.
        notes: What could not be computed, and why.
        layer_count: Number of layers of the network, analysed or not; relative depths refer to it. None: up to the last
            analysed layer.
    """

    label: str
    description: str
    image_name: str
    image: np.ndarray
    layers: list[LayerReport]
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    predicted: str = ''
    notes: list[str] = field(default_factory=list)
    layer_count: int | None = None
