"""VIP: a ResNet-50 trained on people's videos to measure how far a goal is (Ma et al. 2022, arXiv 2210.00030).

Network, pictures and names of tensors as in github.com/facebookresearch/vip, whose README says CC BY-NC 4.0, not for
commercial use: the loader `vip/__init__.py` takes `vip` out of the file and gives it to a DataParallel of
`vip/models/model_vip.py`'s VIP, whose `convnet` is torchvision's network with an `fc` of its own.
"""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import vip as settings


class VIP(settings.VIP, FrozenEncoder):
    """VIP's ResNet-50 (1024 features per camera)."""

    def make_network(self) -> nn.Module:
        """torchvision's network, whose last linear layer gives the features."""
        from torchvision.models import get_model

        network: nn.Module = get_model("resnet50", num_classes=self.source.features)
        return network
