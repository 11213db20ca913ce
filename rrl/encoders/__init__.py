"""Encoders: pictures to feature vectors. Importing this package registers its own encoders."""

from rrl.encoders.autoencoder import AutoencoderCNN
from rrl.encoders.contrastive import ContrastiveCNN
from rrl.encoders.fixed import FixedEncoder
from rrl.encoders.mobilenet import MobileNetV2
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.encoders.resnet import ResNet
from rrl.encoders.state import State

__all__ = ["AutoencoderCNN", "ContrastiveCNN", "FixedEncoder", "MobileNetV2", "PixelCNN", "ResNet", "State"]
