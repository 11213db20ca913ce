"""Settings of R3M, and what is published of it."""

from __future__ import annotations

from typing import Annotated, Literal

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Checkpoint, Pretrained
from rrl.encoders.settings.frozen import FrozenEncoder, by_hand
from rrl.registry import register

ADDRESS = "https://pytorch.s3.amazonaws.com/models/rl/r3m/r3m_{}.pt"
"""torchrl's copy (its R3MTransform): the authors' own files lie on a drive that programs can't address by name."""
CHECKPOINT = Checkpoint("r3m", "convnet.", unused=("lang_enc.", "lang_rew."))
PUBLISHED = tuple(
    Pretrained(f"r3m_{depth}", features, IMAGENET, checkpoint=CHECKPOINT, address=ADDRESS.format(depth))
    for depth, features in ((18, 512), (34, 512), (50, 2048))
)


@register
class R3M(FrozenEncoder):
    """R3M's ResNet-18 or -34 (512 features per camera) or -50 (2048)."""

    implemented_in = "rrl.encoders.r3m"
    packages = ("torch", "torchvision")
    pretrained = PUBLISHED

    class Config(FrozenEncoder.Config):
        """Settings of `R3M`."""

        depth: Literal[18, 34, 50] = 50
        """Layers; R3M's own example loads 50."""
        weights: Annotated[str | None, by_hand(*PUBLISHED)]
        """Path of the published file (the authors' `model.pt`, r3m_50.pt), or of a .safetensors or .pth file of the
        ResNet's tensors, relative to the gin file; None: explicitly untrained."""

        def label(self) -> str:
            """With the depth: `R3M50`."""
            return super().label().replace("R3M", f"R3M{self.depth}", 1)

        @property
        def network(self) -> str:
            """One of r3m_18, r3m_34, r3m_50."""
            return f"r3m_{self.depth}"
