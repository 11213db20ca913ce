"""What a policy reaches without pictures: the control that makes a pixel result mean something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from rrl.encoders.base import Encoder
from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Context, Evaluator
from rrl.evaluators.success import evaluate, in_words, summary
from rrl.registry import get, register
from rrl.rollout.data import Policy
from rrl.rollout.episodes import Collector


@register
class BlindControl(Evaluator):
    """The same agent behaviour-cloned from the same demonstrations, with joint angles alone.

    It runs the same evaluation episodes as `SuccessRate`. Tasks whose objects start in nearly the same
    place can be solved blindly now and then; only what lies above this control was seen.
    """

    class Config(Evaluator.Config):
        """How many policies and episodes."""

        clones: Annotated[int, Field(gt=0)] = 5
        """Policies cloned with different seeds, episodes pooled: what one blind clone reaches is luck."""
        episodes: Annotated[int, Field(gt=0)] = 25
        """Evaluation episodes of each (mean action)."""

    config: Config
    needs_success: ClassVar[bool] = True

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields what `SuccessRate` does, with names that begin with `blind_`."""
        envs = env.make(context.collector.envs.num_envs, None, context.collector.envs.workers)
        try:
            collector = Collector(envs)
            encoder = get("State").Config.model_validate({"blind": True})
            assert isinstance(encoder, Encoder.Config)
            rollouts = [
                evaluate(blind, collector, self.config.episodes, context, sampled=False)
                for blind in context.warm_started(encoder, collector, self.config.clones)
            ]
        finally:
            envs.close()
        for name, value in summary(rollouts):
            yield f"blind_{name}", value
        words = in_words(rollouts, env.flags[0])
        context.say(f"blind control (joints only, {self.config.clones} clones): {words}")
