"""Success rate: the number that the paper plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Context, Evaluator
from rrl.registry import register
from rrl.rollout import Collector, Policy, Rollout, Stream, episodes
from rrl.statistics import wilson


@register
class SuccessRate(Evaluator):
    """Success over fixed evaluation episodes, the same every time (paper: 25 per iteration, mean action)."""

    class Config(Evaluator.Config):
        """How many episodes, and with which actions."""

        episodes: Annotated[int, Field(gt=0)] = 25
        """Episodes per kind of action."""
        actions: Literal["mean", "sampled", "both"] = "mean"
        """'mean': the policy's mean action; 'sampled': with exploration noise (names end in `_sampled`)."""

    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields success (percent) under each goal flag, its 95 % Wilson interval, and the mean return."""
        for kind, suffix in (("mean", ""), ("sampled", "_sampled")):
            if self.config.actions not in (kind, "both"):
                continue
            rollout = evaluate(
                policy, context.collector, self.config.episodes, context, sampled=kind == "sampled"
            )
            yield from summary([rollout], suffix)
            context.say(f"{kind} action: {in_words([rollout], env.flags[0])}")


def evaluate(policy: Policy, collector: Collector, count: int, context: Context, *, sampled: bool) -> Rollout:
    """Run the run's first `count` evaluation episodes."""
    envs = collector.envs
    noise = (envs.factory.horizon, envs.action_dim) if sampled else None
    todo = episodes(count, seed=context.seed, stream=Stream.EVAL, noise=noise)
    return collector.collect(policy, todo, progress=context.progress)


def summary(rollouts: Sequence[Rollout], suffix: str = "") -> Iterator[tuple[str, float]]:
    """Success in percent under each flag, with the interval of the first one, and the mean return; the
    episodes of all rollouts count alike."""
    for n, flag in enumerate(rollouts[0].flags):
        success = np.concatenate([r.success(flag) for r in rollouts])
        yield flag + suffix, 100.0 * float(success.mean())
        if n == 0:
            low, high = wilson(int(success.sum()), len(success))
            yield f"{flag}_low{suffix}", 100.0 * low
            yield f"{flag}_high{suffix}", 100.0 * high
    returns = np.concatenate([r.returns() for r in rollouts])
    yield "return" + suffix, float(returns.mean())
    yield "episodes" + suffix, float(len(returns))


def in_words(rollouts: Sequence[Rollout], flag: str) -> str:
    """Such as `success 95.0 % (57 of 60 episodes; 95 % interval 86.3 to 98.3)`."""
    wins, total = sum(int(r.success(flag).sum()) for r in rollouts), sum(r.episodes for r in rollouts)
    low, high = wilson(wins, total)
    return (
        f"{flag} {100 * wins / total:.1f} % ({wins} of {total} episodes; "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )
