"""Success rate, the number that the paper plots, and the return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np

from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Context, Episodes, Evaluator
from rrl.registry import register
from rrl.rollout.data import Policy, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.statistics import wilson


@register
class EpisodeReturn(Evaluator):
    """Return over fixed evaluation episodes, the same every time; on DMControl the score (0 to 1000)."""

    class Config(Evaluator.Config):
        """How many episodes, and with which actions."""

        episodes: Episodes = 10
        """Episodes per kind of action (RAD, CURL: 10)."""
        actions: Literal["mean", "sampled", "both"] = "mean"
        """'mean': the policy's mean action; 'sampled': with exploration noise (names end in `_sampled`)."""

        def steps(self, env: EnvFactory) -> int:
            """Of both kinds of action, if both are asked for."""
            return (2 if self.actions == "both" else 1) * self.episodes * env.horizon

    measures_score = True
    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields `numbers` for each kind of action."""
        for kind, suffix in (("mean", ""), ("sampled", "_sampled")):
            if self.config.actions not in (kind, "both"):
                continue
            rollout = evaluate(policy, context.collector, self.config.episodes, context, sampled=kind == "sampled")
            yield from self.numbers(rollout, suffix)
            context.say(f"{kind} action: {self.in_words(rollout)}")

    def numbers(self, rollout: Rollout, suffix: str) -> Iterator[tuple[str, float]]:
        """The mean return, its standard deviation over episodes, and their number."""
        yield from returns([rollout], suffix)

    def in_words(self, rollout: Rollout) -> str:
        """Of the return, see the function."""
        return return_in_words([rollout])


@register
class SuccessRate(EpisodeReturn):
    """Success over fixed evaluation episodes, the same every time (paper: 25 per iteration, mean action)."""

    needs_success: ClassVar[bool] = True

    class Config(EpisodeReturn.Config):
        """How many episodes, and with which actions."""

        episodes: Episodes = 25
        """Episodes per kind of action."""

    config: Config

    def numbers(self, rollout: Rollout, suffix: str) -> Iterator[tuple[str, float]]:
        """Success in percent under each goal flag, its 95 % Wilson interval, and the returns."""
        return summary([rollout], suffix)

    def in_words(self, rollout: Rollout) -> str:
        """Of the first goal flag, see the function."""
        return in_words([rollout], next(iter(rollout.flags)))


def evaluate(policy: Policy, collector: Collector, count: int, context: Context, *, sampled: bool) -> Rollout:
    """Run the run's first `count` evaluation episodes."""
    envs = collector.envs
    noise = (envs.factory.horizon, envs.action_dim) if sampled else None
    todo = episodes(count, seed=context.seed, stream=Stream.EVAL, noise=noise)
    return collector.collect(policy, todo, progress=context.progress, keep=False)


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
    yield from returns(rollouts, suffix)


def returns(rollouts: Sequence[Rollout], suffix: str = "") -> Iterator[tuple[str, float]]:
    """Mean and standard deviation of all episodes' returns, and their number."""
    values = np.concatenate([r.returns() for r in rollouts])
    yield "return" + suffix, float(values.mean())
    yield "return_std" + suffix, float(values.std())
    yield "episodes" + suffix, float(len(values))


def in_words(rollouts: Sequence[Rollout], flag: str) -> str:
    """Such as `success 95.0 % (57 of 60 episodes; 95 % interval 86.3 to 98.3)`."""
    wins, total = sum(int(r.success(flag).sum()) for r in rollouts), sum(r.episodes for r in rollouts)
    low, high = wilson(wins, total)
    return (
        f"{flag} {100 * wins / total:.1f} % ({wins} of {total} episodes; "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )


def return_in_words(rollouts: Sequence[Rollout]) -> str:
    """Such as `return 812.3 +- 41.0 (10 episodes)`."""
    values = np.concatenate([r.returns() for r in rollouts])
    return f"return {values.mean():.1f} +- {values.std():.1f} ({len(values)} episodes)"
