"""The yardstick of `rrl bench pretrain`: a VAE trained by a bare torch loop on tensors that are in memory.

Nothing here comes from rrl but the module that it is handed, of which it takes the losses.
"""

from __future__ import annotations

import torch
from torch import nn


class Plain:
    """Normalised float32 pictures [N, 3, side, side], random batches, torch's Adam; bf16 by autocast if asked."""

    def __init__(self, module: nn.Module, pictures: torch.Tensor, batch: int, bf16: bool) -> None:
        self.module, self.pictures, self.batch, self.bf16 = module, pictures, batch, bf16
        self.optimiser = torch.optim.Adam(module.parameters(), lr=0.005)
        self.generator = torch.Generator().manual_seed(0)

    def epoch(self) -> None:
        """Every picture once, but for a last incomplete batch."""
        order = torch.randperm(len(self.pictures), generator=self.generator)
        for places in order.split(self.batch)[: len(order) // self.batch]:
            self.optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                losses = self.module.losses(self.pictures[places], 1e-4, self.generator)
            losses["loss"].backward()
            self.optimiser.step()
