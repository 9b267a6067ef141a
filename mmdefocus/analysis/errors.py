"""Errors of an analysis that cannot be made as requested."""


class AnalysisError(ValueError):
    """The request does not fit the model or the images. The message addresses the user."""


class NoAttention(AnalysisError):
    """A layer exposes no attention.

    Attributes:
        layer: Number of the layer, from 0.
        reason: Why.
    """

    def __init__(self, layer: int, reason: str) -> None:
        super().__init__(f'layer {layer} exposes no attention: {reason}')
        self.layer = layer
        self.reason = reason
