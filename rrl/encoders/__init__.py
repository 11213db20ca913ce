"""Encoders: pictures to feature vectors. Importing this package registers its own encoders, and imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rrl.encoders import settings
from rrl.registry import implementation

if TYPE_CHECKING:
    from rrl.encoders.autoencoder import AutoencoderCNN as AutoencoderCNN
    from rrl.encoders.base import Encoder as Encoder
    from rrl.encoders.contrastive import ContrastiveCNN as ContrastiveCNN
    from rrl.encoders.efficientnet import EfficientNetLite0 as EfficientNetLite0
    from rrl.encoders.fixed import FixedEncoder as FixedEncoder
    from rrl.encoders.frozen import FrozenEncoder as FrozenEncoder
    from rrl.encoders.mobilenet import MobileNetV2 as MobileNetV2
    from rrl.encoders.pixel import PixelEncoder as PixelEncoder
    from rrl.encoders.pixel_cnn import PixelCNN as PixelCNN
    from rrl.encoders.r3m import R3M as R3M
    from rrl.encoders.resnet import ResNet as ResNet
    from rrl.encoders.shufflenet import ShuffleNetV2 as ShuffleNetV2
    from rrl.encoders.state import State as State
    from rrl.encoders.task import TaskEncoder as TaskEncoder
    from rrl.encoders.timm import Timm as Timm
    from rrl.encoders.vae import VAE as VAE
    from rrl.encoders.vc1 import VC1 as VC1
    from rrl.encoders.vdvae import VDVAE as VDVAE
    from rrl.encoders.vip import VIP as VIP

__all__ = [
    "R3M",
    "VAE",
    "VC1",
    "VDVAE",
    "VIP",
    "AutoencoderCNN",
    "ContrastiveCNN",
    "EfficientNetLite0",
    "Encoder",
    "FixedEncoder",
    "FrozenEncoder",
    "MobileNetV2",
    "PixelCNN",
    "PixelEncoder",
    "ResNet",
    "ShuffleNetV2",
    "State",
    "TaskEncoder",
    "Timm",
]


def __getattr__(name: str) -> Any:
    """Its classes, which need torch, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return implementation(getattr(settings, name))
