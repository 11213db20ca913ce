"""Encoders: pictures to feature vectors. Importing this package registers its own encoders."""

from rrl.encoders.autoencoder import AutoencoderCNN
from rrl.encoders.base import Encoder
from rrl.encoders.contrastive import ContrastiveCNN
from rrl.encoders.efficientnet import EfficientNetLite0
from rrl.encoders.fixed import FixedEncoder
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.mobilenet import MobileNetV2
from rrl.encoders.pixel import PixelEncoder
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.encoders.r3m import R3M
from rrl.encoders.resnet import ResNet
from rrl.encoders.shufflenet import ShuffleNetV2
from rrl.encoders.state import State
from rrl.encoders.task import TaskEncoder
from rrl.encoders.timm import Timm
from rrl.encoders.vae import VAE
from rrl.encoders.vc1 import VC1
from rrl.encoders.vdvae import VDVAE
from rrl.encoders.vip import VIP

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
