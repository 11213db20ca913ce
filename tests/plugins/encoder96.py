"""A plugin of one file: a frozen network of patches and attention, with 96-px pictures and its own mean and std."""

import torch
from torch import Tensor, nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.input import Input
from rrl.encoders.weights import Pretrained
from rrl.registry import register

PICTURE = Input(96, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


class Network(nn.Module):
    """[N, 3, 96, 96] -> [N, 32]: a convolution makes patches, one transformer layer mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 32, 16, 16), nn.BatchNorm2d(32))
        self.place = nn.Parameter(torch.randn(36, 32) / 10)
        self.mixer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = self.patches(pictures).flatten(2).transpose(1, 2) + self.place
        return self.mixer(tokens).mean(1)


@register
class Attention96(FrozenEncoder):
    """32 features of 96-px pictures."""

    pretrained = (Pretrained("attention96", 32, PICTURE),)

    class Config(FrozenEncoder.Config):
        """Settings of `Attention96`."""

        weights: str | None = None
        """Path of a .safetensors file, or None: untrained."""

    def make_network(self) -> nn.Module:
        return Network()
