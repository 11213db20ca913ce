"""R3M: a ResNet trained on people's videos and what was said of them (Nair et al. 2022, arXiv 2203.12601).

Network, pictures and names of tensors as in github.com/facebookresearch/r3m, whose files say MIT licence: the loader
`r3m/__init__.py` takes `r3m` out of the file, leaves `lang_enc` and `lang_rew` out and gives the rest to a DataParallel
of `r3m/models_r3m.py`'s R3M, whose `convnet` is torchvision's network with no `fc`.
"""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import r3m as settings


class R3M(settings.R3M, FrozenEncoder):
    """R3M's ResNet-18 or -34 (512 features per camera) or -50 (2048)."""

    config: settings.R3M.Config

    def make_network(self) -> nn.Module:
        """torchvision's network without its last linear layer."""
        from torchvision.models import get_model

        network: nn.Module = get_model(f"resnet{self.config.depth}")
        network.fc = nn.Identity()
        return network
