"""Settings of VC-1, and what is published of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Checkpoint, Pretrained, Tensors
from rrl.encoders.settings.frozen import FrozenEncoder, by_hand
from rrl.registry import register

PICTURE = replace(IMAGENET, interpolation="bicubic")
"""`vit_transforms` of `vc_models/transforms`."""
NAMES = {
    r"^cls_token$": "class_token",
    r"^pos_embed$": "encoder.pos_embedding",
    r"^patch_embed\.proj\.": "conv_proj.",
    r"^norm\.": "encoder.ln.",
    r"^blocks\.(\d+)\.": r"encoder.layers.encoder_layer_\1.",
    r"\.norm([12])\.": r".ln_\1.",
    r"\.attn\.qkv\.": ".self_attention.in_proj_",
    r"\.attn\.proj\.": ".self_attention.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.0.",
    r"\.mlp\.fc2\.": ".mlp.3.",
}
"""What timm's names of tensors become, one after another; torchvision's own stay as they are."""


def torchvisions(tensors: Tensors) -> Tensors:
    """The tensors under torchvision's names."""

    def renamed(name: str) -> str:
        for theirs, ours in NAMES.items():
            name = re.sub(theirs, ours, name)
        return name

    return {renamed(name): tensor for name, tensor in tensors.items()}


def published(size: str, features: int) -> Pretrained:
    """One of the two networks."""
    return Pretrained(
        f"vc1_{size}",
        features,
        PICTURE,
        checkpoint=Checkpoint("model", unused=("decoder_", "mask_token")),
        modernise=torchvisions,
        address=f"https://dl.fbaipublicfiles.com/eai-vc/vc1_vit{size[0]}.pth",
    )


PUBLISHED = (published("base", 768), published("large", 1024))


@register
class VC1(FrozenEncoder):
    """VC-1's ViT-B/16 (768 features per camera) or ViT-L/16 (1024): the class token."""

    implemented_in = "rrl.encoders.vc1"
    packages = ("torch", "torchvision")
    pretrained = PUBLISHED

    class Config(FrozenEncoder.Config):
        """Settings of `VC1`."""

        size: Literal["base", "large"] = "base"
        """ViT-B/16 (86M parameters), or ViT-L/16 (303M)."""
        weights: Annotated[str | None, by_hand(*PUBLISHED)]
        """Path of the published vc1_vitb.pth or vc1_vitl.pth, or of a .safetensors or .pth file of the network's
        tensors, relative to the gin file; None: explicitly untrained."""

        def label(self) -> str:
            """With the size, where it is the larger one: `VC1 large`."""
            return super().label().replace("VC1", "VC1 large" if self.size == "large" else "VC1", 1)

        @property
        def network(self) -> str:
            """vc1_base or vc1_large."""
            return f"vc1_{self.size}"
