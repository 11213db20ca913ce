"""VC-1: a vision transformer trained on people's videos and ImageNet as a masked autoencoder (Majumdar et al. 2023,
arXiv 2303.18240).

Network, pictures and names of tensors as in github.com/facebookresearch/eai-vc: `load_mae_encoder` of
`vc_models/models/vit/vit.py` takes `model` out of the file and leaves the decoder's tensors and the mask's token out;
the feature is the class token behind the last norm (eps 1e-6). The weights' licence is CC BY-NC 4.0, not for commercial
use (model card of facebook/vc1-base).
"""

from __future__ import annotations

from torch import nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import vc1 as settings

NETWORKS = {"base": (12, 12), "large": (24, 16)}
"""Layers and heads of attention, by size."""


class VC1(settings.VC1, FrozenEncoder):
    """VC-1's ViT-B/16 (768 features per camera) or ViT-L/16 (1024): the class token."""

    config: settings.VC1.Config

    def make_network(self) -> nn.Module:
        """torchvision's network without its last linear layer: what VC-1 takes from timm, under other names."""
        from torchvision.models import VisionTransformer

        (layers, heads), width = NETWORKS[self.config.size], self.source.features
        network: nn.Module = VisionTransformer(settings.PICTURE.size, 16, layers, heads, width, 4 * width)
        network.heads = nn.Identity()
        return network
