"""Inference and training steps of a whole network.

Shapes: B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from benchmarking.machine import size_in_bytes
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier.

    Attributes:
        module: Module that holds the parameters.
        logits: Function from images (B, 3, side, side) to logits.
        loss_for: Function from labels (B,) to a function from images to the scalar loss.
    """

    module: nn.Module
    logits: Callable[[Tensor], Tensor]
    loss_for: Callable[[Tensor], Callable[[Tensor], Tensor]]


class Steps:
    """Training and inference steps of one network on one batch of noise."""

    def __init__(self, network: Network, batch: int, side: int, dtype: torch.dtype, device: torch.device) -> None:
        self.network = network
        network.module.to(device)
        self.optimizer = torch.optim.AdamW(network.module.parameters())
        self.images = torch.randn(batch, 3, side, side, device=device)
        self.loss = network.loss_for(torch.randint(10, (batch,), device=device))
        self.autocast = partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)

    def differentiate(self) -> Tensor:
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.loss(self.images)
        loss.backward()
        return loss.detach()

    def train(self) -> None:
        self.network.module.train()
        self.differentiate()
        self.optimizer.step()

    def infer(self) -> Tensor:
        self.network.module.eval()
        with torch.inference_mode(), self.autocast():
            return self.network.logits(self.images)

    def defect(self) -> str | None:
        """Return a description of the first missing or non-finite value, or None."""
        if not self.infer().isfinite().all():
            return 'logits that are not finite'
        self.network.module.train()
        if not self.differentiate().isfinite():
            return 'a loss that is not finite'
        for name, parameter in self.network.module.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                return f'no gradient of {name}'
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                return f'a gradient of {name} that is not finite'
        return None

    def held_bytes(self) -> int:
        """Return the bytes of parameters, buffers and optimiser state, without gradients."""
        state = [x for values in self.optimizer.state.values() for x in values.values()]
        module = self.network.module
        return sum(map(size_in_bytes, [*module.parameters(), *module.buffers(), *state]))
