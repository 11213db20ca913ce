"""Encoders before they are made: their settings and what else is to be known of them, without torch.

A module here and the one of the same name in `rrl.encoders` are one page: what can be set, and what is done with it.
"""

from rrl.encoders.settings.autoencoder import AutoencoderCNN
from rrl.encoders.settings.base import Encoder
from rrl.encoders.settings.contrastive import ContrastiveCNN
from rrl.encoders.settings.efficientnet import EfficientNetLite0
from rrl.encoders.settings.fixed import FixedEncoder
from rrl.encoders.settings.frozen import FrozenEncoder
from rrl.encoders.settings.mobilenet import MobileNetV2
from rrl.encoders.settings.pixel import PixelEncoder
from rrl.encoders.settings.pixel_cnn import PixelCNN
from rrl.encoders.settings.r3m import R3M
from rrl.encoders.settings.resnet import ResNet
from rrl.encoders.settings.shufflenet import ShuffleNetV2
from rrl.encoders.settings.state import State
from rrl.encoders.settings.task import TaskEncoder
from rrl.encoders.settings.timm import Timm
from rrl.encoders.settings.vae import VAE
from rrl.encoders.settings.vc1 import VC1
from rrl.encoders.settings.vdvae import VDVAE
from rrl.encoders.settings.vip import VIP

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
