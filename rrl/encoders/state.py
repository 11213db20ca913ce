"""No pictures at all: the policy sees the environment's state vector only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rrl.encoders.base import Encoder, Inference
from rrl.encoders.settings import state as settings


class State(settings.State, Encoder):
    """Encodes nothing: features are [N, 0] and the environment renders nothing.

    With the task's state observation this is the paper's NPG(state) and DAPG(state); with the joints
    alone it is a blind policy, the control that shows what the pictures are worth.
    """

    dim = 0

    def __init__(self, config: State.Config, cameras: int = 0) -> None:
        super().__init__(config, cameras)

    def forward(self, frames: Tensor) -> Tensor:
        """Anything with N rows -> float32 [N, 0]."""
        return torch.zeros(len(frames), 0, device=frames.device)

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """Anything with N rows -> float32 [N, 0] on `how.device`."""
        return lambda frames: torch.zeros(len(frames), 0, device=how.device)
