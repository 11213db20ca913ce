"""PixelCNN: the encoder of RAD, which learns from random views of the frames and no loss of its own."""

from __future__ import annotations

from rrl.encoders.pixel import PixelEncoder
from rrl.encoders.settings import pixel_cnn as settings


class PixelCNN(settings.PixelCNN, PixelEncoder):
    """RAD's encoder (Laskin et al. 2020): four convolutions, trained by the critics on random views."""
