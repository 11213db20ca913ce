"""Settings of what sees no pictures."""

from __future__ import annotations

from rrl.encoders.settings.base import Encoder
from rrl.envs.base import FrameRequest
from rrl.registry import register


@register
class State(Encoder):
    """Encodes nothing: features are [N, 0] and the environment renders nothing.

    With the task's state observation this is the paper's NPG(state) and DAPG(state); with the joints
    alone it is a blind policy, the control that shows what the pictures are worth.
    """

    implemented_in = "rrl.encoders.state"

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

    @classmethod
    def blind_control(cls) -> State.Config:
        """The joints alone."""
        return cls.Config(blind=True)
