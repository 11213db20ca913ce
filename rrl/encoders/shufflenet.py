"""ShuffleNetV2: the paper's smallest encoder (figure 7), a twenty-fifth of ResNet-34's multiplications."""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.input import IMAGENET
from rrl.encoders.weights import Pretrained
from rrl.registry import register


@register
class ShuffleNetV2(FrozenEncoder):
    """ShuffleNetV2 x1.0 (1024 features per camera), network and pictures as torchvision's IMAGENET1K_V1."""

    packages = ("torch", "torchvision")
    pretrained = (
        Pretrained(
            "shufflenet_v2_x1_0",
            1024,
            IMAGENET,
            "https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth",
            classifier="fc.",
        ),
    )

    class Config(FrozenEncoder.Config):
        """Settings of `ShuffleNetV2`."""

    def make_network(self) -> nn.Module:
        """torchvision's network without its last linear layer."""
        from torchvision.models import get_model

        network: nn.Module = get_model(self.source.name)
        network.fc = nn.Identity()
        return network
