"""Encoders: pictures to feature vectors. Importing this package registers its own encoders."""

from rrl.encoders.mobilenet import MobileNetV2
from rrl.encoders.resnet import ResNet
from rrl.encoders.state import State

__all__ = ["MobileNetV2", "ResNet", "State"]
