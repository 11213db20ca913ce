"""ResNet: the paper's encoder (section 4; ResNet-34 is its default)."""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import resnet as settings


class ResNet(settings.ResNet, FrozenEncoder):
    """ResNet-18 or -34 (512 features per camera) or -50 (2048), as torchvision's IMAGENET1K_V1."""

    def make_network(self) -> nn.Module:
        """torchvision's network without its last linear layer."""
        from torchvision.models import get_model

        network: nn.Module = get_model(self.source.name)
        network.fc = nn.Identity()
        return network
