"""ShuffleNetV2: the paper's smallest encoder (figure 7), a twenty-fifth of ResNet-34's multiplications."""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import shufflenet as settings


class ShuffleNetV2(settings.ShuffleNetV2, FrozenEncoder):
    """ShuffleNetV2 x1.0 (1024 features per camera), network and pictures as torchvision's IMAGENET1K_V1."""

    def make_network(self) -> nn.Module:
        """torchvision's network without its last linear layer."""
        from torchvision.models import get_model

        network: nn.Module = get_model(self.source.name)
        network.fc = nn.Identity()
        return network
