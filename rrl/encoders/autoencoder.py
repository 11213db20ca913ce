"""AutoencoderCNN: the encoder of SAC+AE, which also learns to reconstruct its frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrl.encoders.pixel import Code, Head, PixelEncoder
from rrl.encoders.settings import autoencoder as settings

CODE_PENALTY = 1e-6
"""Weight of half the mean squared length of codes."""
BITS = 5
"""To which pictures are quantised before they are reconstructed, as in Glow."""


class Decoder(nn.Module):
    """The encoder's mirror image: codes [B, features] -> pictures float32 [B, side, side, channels]."""

    def __init__(self, config: PixelEncoder.Config, channels: int) -> None:
        super().__init__()
        self.filters, self.map_side = config.filters, config.map_side
        self.linear = nn.Linear(config.features, self.filters * self.map_side**2)
        layers: list[nn.Module] = []
        for _ in range(config.layers - 1):
            layers += [nn.ConvTranspose2d(self.filters, self.filters, 3), nn.ReLU(True)]
        # A convolution of stride 2 drops the last pixel of an even side: it has to be added again.
        missing = 1 - config.side % 2
        last = nn.ConvTranspose2d(self.filters, channels, 3, stride=2, output_padding=missing)
        self.transposed = nn.Sequential(*layers, last)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [B, features] -> [B, side, side, channels]."""
        maps = torch.relu(self.linear(codes)).view(-1, self.map_side, self.map_side, self.filters)
        pictures: Tensor = self.transposed(maps.permute(0, 3, 1, 2))
        return pictures.permute(0, 2, 3, 1)


class AutoencoderCNN(settings.AutoencoderCNN, PixelEncoder):
    """SAC+AE's encoder (Yarats et al. 2019): trained by the critics, and with a decoder by reconstruction."""

    own_weight_decay = 1e-7

    def make_objective(self) -> nn.Module:
        """The decoder."""
        return Decoder(self.config, self.channels)

    def head(self, generator: torch.Generator) -> Head:
        """A fresh linear layer, LayerNorm and tanh on the CPU: [B, dim] -> codes in (-1, 1) [B, code_dim]."""
        return Head(*super().head(generator), nn.Tanh())

    def loss(self, code: Code, target_code: Code, anchor: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the decoder's pictures of `code(anchor)` against the quantised `anchor`, and
        1e-6 times half the mean squared length of the codes. `target_code` and `frames` aren't used."""
        codes = code(anchor)
        with torch.autocast(codes.device.type, torch.bfloat16, enabled=self.mixed):
            pictures = self.objective(codes)
        error = F.mse_loss(pictures.float(), quantised(anchor, generator))
        return error + CODE_PENALTY * 0.5 * codes.square().sum(1).mean()


def quantised(views: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 of any shape -> float32 in [-0.5, 0.5]: the upper 5 bits, and uniform noise for the lower 3.

    The noise is drawn where the views are, by a generator that the CPU generator `generator` seeds.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    local = torch.Generator(views.device).manual_seed(seed)
    noise = torch.rand(views.shape, generator=local, device=views.device)
    return noise.add_(views >> (8 - BITS)).div_(2**BITS).sub_(0.5)
