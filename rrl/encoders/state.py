"""No pictures at all: the policy sees the environment's state vector only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rrl.encoders.base import Encoder, Inference
from rrl.envs.base import FrameRequest
from rrl.registry import register


@register
class State(Encoder):
    """Encodes nothing: features are [N, 0] and the environment renders nothing.

    With the task's state observation this is the paper's NPG(state) and DAPG(state); with the joints
    alone it is a blind policy, the control that shows what the pictures are worth.
    """

    class Config(Encoder.Config):
        """Settings of `State`."""

        blind: bool = False
        """Say True to train without pictures on the joints alone, on purpose."""

        def frames(self) -> FrameRequest | None:
            """No pictures."""
            return None

        @property
        def blind_on_purpose(self) -> bool:
            """As `blind` says."""
            return self.blind

        @property
        def blindfold(self) -> str:
            """The setting that says so."""
            return "for a blind control add `State.blind = True`; "

        def label(self) -> str:
            """`State`, or `State (blind)`."""
            return "State (blind)" if self.blind else "State"

    dim = 0

    def __init__(self, config: State.Config, cameras: int = 0) -> None:
        super().__init__(config, cameras)

    @classmethod
    def blind_control(cls) -> State.Config:
        """The joints alone."""
        return cls.Config(blind=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Anything with N rows -> float32 [N, 0]."""
        return torch.zeros(len(frames), 0, device=frames.device)

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """Anything with N rows -> float32 [N, 0] on `how.device`."""
        return lambda frames: torch.zeros(len(frames), 0, device=how.device)
