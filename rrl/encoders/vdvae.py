"""VDVAE: the encoder of a very deep hierarchical variational autoencoder of ImageNet (figures 6 and 7).

Child 2021, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images" (arXiv 2011.10650);
sizes, pictures and names of tensors as in github.com/openai/vdvae (MIT licence): `hps.py`, `data.py`, `vae.py`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import vdvae as settings
from rrl.encoders.settings.vdvae import WIDTH

NARROW = 128
"""Channels inside a block; all other maps have `WIDTH`."""

BLOCKS = {
    64: {64: 11, 32: 20, 16: 9, 8: 8, 4: 7, 1: 5},
    32: {32: 15, 16: 9, 8: 8, 4: 6, 1: 6},
}
"""By the picture's side: how many blocks work at each side of the maps. One more leads from each side to the next."""


class Block(nn.Module):
    """Adds to maps [N, 512, side, side] what a bottleneck of four convolutions makes of them, each of the GELU of what
    comes to it; then takes means over squares of `pool` pixels."""

    def __init__(self, side: int, pool: int) -> None:
        super().__init__()
        kernel = 3 if side > 2 else 1
        self.c1 = nn.Conv2d(WIDTH, NARROW, 1)
        self.c2 = nn.Conv2d(NARROW, NARROW, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(NARROW, NARROW, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(NARROW, WIDTH, 1)
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        change = maps
        for convolution in (self.c1, self.c2, self.c3, self.c4):
            change = convolution(F.gelu(change))
        maps = maps + change
        return F.avg_pool2d(maps, self.pool) if self.pool > 1 else maps


class Network(nn.Module):
    """[N, 3, side, side] -> the last maps, [N, 512]: they are one pixel large."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(3, WIDTH, 3, padding=1)
        blocks: list[Block] = []
        for (own, count), (below, _) in pairwise([*BLOCKS[side].items(), (1, 0)]):
            blocks += [Block(own, 1) for _ in range(count)]
            blocks += [Block(own, own // below)] if own > 1 else []
        self.enc_blocks = nn.Sequential(*blocks)
        with torch.no_grad():  # such that the maps don't grow with the depth, before any training
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
            for block in blocks:
                block.c4.weight.mul_(len(blocks) ** -0.5)

    def forward(self, pictures: Tensor) -> Tensor:
        maps: Tensor = self.enc_blocks(self.in_conv(pictures))
        return maps.flatten(1)


class VDVAE(settings.VDVAE, FrozenEncoder):
    """The encoder of an ImageNet VDVAE (512 features per camera) of 64-px pictures, or of 32-px ones."""

    config: settings.VDVAE.Config

    def make_network(self) -> nn.Module:
        """The encoder alone: 26.5M of 125M parameters, or 18.9M of 119M."""
        return Network(self.config.size)
