"""Settings of CURL's encoder."""

from __future__ import annotations

from typing import Literal

from rrl.encoders.settings.pixel import PixelEncoder
from rrl.registry import register


@register
class ContrastiveCNN(PixelEncoder):
    """CURL's encoder (Srinivas et al. 2020): trained by the critics, and by a contrastive loss.

    Among the target encoder's codes of a second random view of the batch, each code must find its own
    frames' one. The authors' two Adam optimisers both step on that loss, and both hold the encoder.
    """

    implemented_in = "rrl.encoders.contrastive"
    has_loss = True

    class Config(PixelEncoder.Config):
        """Settings of `ContrastiveCNN`."""

        augmentation: Literal["crop", "translate"] = "crop"
        """What the two views of a frame are: random windows of side `crop` (CURL), or the frame at random
        places of a black `canvas`. Acting and evaluation take the centre. There is no 'none': two equal
        views have nothing to teach."""
