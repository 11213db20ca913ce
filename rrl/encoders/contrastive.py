"""ContrastiveCNN: the encoder of CURL, which also learns to tell its own frames from others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrl.encoders.pixel import Code, PixelEncoder
from rrl.encoders.settings import contrastive as settings


class Bilinear(nn.Module):
    """Similarities q^T W k of every q [B, n] to every k [B, n]: [B, B]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, features))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[B, n], [B, n] -> [B, B]; row i: the i-th query."""
        return queries @ (self.weight @ keys.T)


class ContrastiveCNN(settings.ContrastiveCNN, PixelEncoder):
    """CURL's encoder (Srinivas et al. 2020): trained by the critics, and by a contrastive loss.

    Among the target encoder's codes of a second random view of the batch, each code must find its own
    frames' one. The authors' two Adam optimisers both step on that loss, and both hold the encoder.
    """

    doubled = True
    unused_offsets = 1
    """CURL's authors draw crop offsets 0..15 of 0..16 (100 -> 84 pixels); RAD's draw all."""

    def make_objective(self) -> nn.Module:
        """CURL's matrix W."""
        return Bilinear(self.config.features)

    def initialise(self, generator: torch.Generator) -> None:
        """As every encoder that learns; W is uniform in [0, 1)."""
        super().initialise(generator)
        with torch.no_grad():
            for weight in self.objective.parameters():
                weight.copy_(torch.rand(weight.shape, generator=generator))

    def loss(self, code: Code, target_code: Code, anchor: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """InfoNCE: cross entropy of the logits q^T W k, q = `code` of `anchor`, k = `target_code` of other
        views of the same `frames`; the right answers stand on the diagonal."""
        (other,) = self.augment(frames, generator=generator)
        with torch.no_grad():
            keys = target_code(other)
        logits = self.objective(code(anchor), keys)
        # The authors subtract each row's maximum first, as cross_entropy does by itself.
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
