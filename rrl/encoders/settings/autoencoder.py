"""Settings of SAC+AE's encoder."""

from __future__ import annotations

from typing import Literal

from rrl.encoders.settings.pixel import PixelEncoder, Side
from rrl.registry import register


@register
class AutoencoderCNN(PixelEncoder):
    """SAC+AE's encoder (Yarats et al. 2019): trained by the critics, and with a decoder by reconstruction."""

    implemented_in = "rrl.encoders.autoencoder"
    has_loss = True

    class Config(PixelEncoder.Config):
        """Settings of `AutoencoderCNN`."""

        render: Side = 84
        """Side of the rendered and stored frames, in pixels (SAC+AE: 84)."""
        augmentation: Literal["crop", "translate", "none"] = "none"
        """What a training view is: the frame as it is (SAC+AE), a random window of side `crop`, or the frame
        at a random place of a black `canvas`. Acting and evaluation take the centre."""
