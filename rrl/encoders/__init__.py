"""Encoders: pictures to feature vectors. Importing this package registers its own encoders."""

from rrl.encoders.autoencoder import AutoencoderCNN
from rrl.encoders.base import Encoder
from rrl.encoders.contrastive import ContrastiveCNN
from rrl.encoders.fixed import FixedEncoder
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.mobilenet import MobileNetV2
from rrl.encoders.pixel import PixelEncoder
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.encoders.resnet import ResNet
from rrl.encoders.state import State
from rrl.encoders.task import TaskEncoder
from rrl.encoders.vae import VAE

__all__ = [
    "VAE",
    "AutoencoderCNN",
    "ContrastiveCNN",
    "Encoder",
    "FixedEncoder",
    "FrozenEncoder",
    "MobileNetV2",
    "PixelCNN",
    "PixelEncoder",
    "ResNet",
    "State",
    "TaskEncoder",
]
