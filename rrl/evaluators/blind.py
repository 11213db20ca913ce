"""What a policy reaches without pictures: the control that makes a pixel result mean something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from rrl.encoders.settings.base import Encoder
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context, Episodes, Evaluator
from rrl.evaluators.success import evaluate, in_words, summary
from rrl.registry import Mistake, Parts, build, get, names, proposals, register
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

        clones: Annotated[int, Field(gt=0, le=1_000)] = 5
        """Policies cloned with different seeds, episodes pooled: what one blind clone reaches is luck."""
        episodes: Episodes = 25
        """Evaluation episodes of each (mean action)."""

        def steps(self, env: EnvFactory) -> int:
            """Of all clones."""
            return self.clones * self.episodes * env.horizon

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """Nothing to clone, or nothing to be blind to."""
            yield from super().misfit(run)
            env: EnvFactory = build(run.env)
            if run.demos is None or not env.blind_state or not env.has_state:
                lacks = [] if run.demos is not None else [f"`Experiment.demos = {proposals('demos')}`"]
                lacks += [f"`{env.proprioception}`"] if env.proprioception and not env.blind_state else []
                yield Mistake(
                    "evaluators",
                    f"{self.component.__name__} clones demonstrations from joint angles alone: it needs "
                    "Experiment.demos and a state without objects",
                    f"add {' and '.join(lacks)}, or remove it" if lacks else "remove it",
                )

    config: Config
    needs_success: ClassVar[bool] = True

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields what `SuccessRate` does, with names that begin with `blind_`."""
        envs = WorkerVectorEnv(env, context.collector.envs.num_envs, None, context.collector.envs.workers)
        try:
            collector = Collector(envs)
            rollouts = [
                evaluate(blind, collector, self.config.episodes, context, sampled=False)
                for blind in context.warm_started(blind_encoder(), collector, self.config.clones)
            ]
        finally:
            envs.close()
        for name, value in summary(rollouts):
            yield f"blind_{name}", value
        words = in_words(rollouts, env.score.name)
        context.say(f"blind control (joints only, {self.config.clones} clones): {words}")


def blind_encoder() -> Encoder.Config:
    """The encoder that is blind on purpose, whichever registered one that is."""
    classes = [cls for name in names("encoder") if issubclass(cls := get(name), Encoder)]
    return next(config for cls in classes if (config := cls.blind_control()) is not None)
