"""MyEncoder: a frozen network with features for any agent."""

from itertools import pairwise

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.input import Input
from rrl.encoders.weights import Pretrained
from rrl.registry import register

PICTURE = Input(96, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What the network takes: 96 pixels a side, and what is subtracted from and divided out of its channels in [0, 1].
Runs render pictures of this size."""


@register
class MyEncoder(FrozenEncoder):
    """Four convolutions (128 features per camera)."""

    pretrained = (Pretrained("my_encoder", 128, PICTURE),)

    class Config(FrozenEncoder.Config):
        """Settings of MyEncoder."""

        weights: str | None = None
        """Path of a .safetensors or .pth file with the network's tensors; None: untrained."""

    def make_network(self):
        """[N, 3, 96, 96], normalised -> [N, 128]."""
        layers = []
        for before, after in pairwise((3, 16, 32, 64, 128)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
