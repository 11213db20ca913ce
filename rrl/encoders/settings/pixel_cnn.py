"""Settings of RAD's encoder."""

from __future__ import annotations

from rrl.encoders.settings.pixel import PixelEncoder
from rrl.registry import register


@register
class PixelCNN(PixelEncoder):
    """RAD's encoder (Laskin et al. 2020): four convolutions, trained by the critics on random views."""

    implemented_in = "rrl.encoders.pixel_cnn"

    class Config(PixelEncoder.Config):
        """Settings of `PixelCNN`."""
