"""One iteration of training: the agent gets the data that it wants and learns from them.

An iteration is a row of metrics and a checkpoint. For agents that want episodes it is their episodes and one
update; for those that want steps, rounds of steps and updates until `log_every` environment steps are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rrl.agents.base import Agent, AgentSteps, Metrics
from rrl.rollout.data import Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.rollout.steps import Ended, Stepper
from rrl.run import soundness
from rrl.run.ledger import Ledger
from rrl.score import Score
from rrl.statistics import area, wilson
from rrl.store.tracking import Row


def on_episodes(
    agent: Agent,
    collector: Collector,
    count: int,
    seed: int,
    iteration: int,
    ledger: Ledger,
    *,
    progress: Callable[[int], None],
    ended: Callable[[bool], None],
    sampled: Callable[[Metrics], None],
    learning: Callable[[], None],
) -> tuple[Metrics, int]:
    """`count` whole episodes with the policy as it is, then one update. Returns metrics and environment steps.

    Costs go into the `ledger`. `progress` and `ended` are told what `Collector.collect` tells them; `sampled` is called
    with the episodes' statistics before the update, `learning` when that begins.
    """
    envs, factory = collector.envs, collector.envs.factory
    noise = (factory.horizon, envs.action_dim)
    todo = episodes(count, seed=seed, stream=Stream.TRAIN, iteration=iteration, noise=noise)
    rollout = collector.collect(agent, todo, progress=progress, ended=ended)
    ledger.sampled(agent, rollout.obs, rollout.counts)
    metrics = train_metrics(rollout, factory.flags)
    sampled(metrics)
    learning()
    start = time.perf_counter()
    metrics |= ledger.learn(agent, rollout, whole=True)
    metrics["time/update"] = time.perf_counter() - start
    return metrics, len(rollout.rewards) * factory.action_repeat


def on_steps(
    agent: Agent, stepper: Stepper, wants: AgentSteps, log_every: int, ledger: Ledger, progress: Callable[[int], None]
) -> tuple[Metrics, int]:
    """The steps of every environment that the agent `wants` and an update in turn, until `log_every` environment steps
    are made and learnt from. Returns metrics (the agent's are means over the updates) and environment steps; costs go
    into the `ledger`."""
    stepper.ended, stepper.seconds = [], dict.fromkeys(stepper.seconds, 0.0)
    stepper.counts = dict.fromkeys(stepper.counts, 0)
    sums: dict[str, list[float]] = {}
    began, learning, steps = time.perf_counter(), 0.0, 0

    def learn(rollout: Rollout) -> None:
        nonlocal learning
        start = time.perf_counter()
        measured = ledger.learn(agent, rollout, whole=False)
        if not all(map(math.isfinite, measured.values())):
            soundness.check(agent, f"after {agent.updates:,} updates", measured)
        for name, value in measured.items():
            sums.setdefault(name, []).append(value)
        learning += time.perf_counter() - start

    later: Callable[[], None] | None = None
    """The update that waits for the environments to be busy; none does at an iteration's end, for its checkpoint."""
    while steps < log_every:
        rollout = stepper.collect(agent, wants.count, progress, later)
        steps += len(rollout.rewards) * stepper.envs.factory.action_repeat
        later = partial(learn, rollout)
        if steps >= log_every or not wants.overlap:
            later()
            later = None
    metrics = {name: float(np.mean(values)) for name, values in sums.items()}
    metrics |= ended_metrics(stepper.ended, stepper.envs.factory.flags)
    total = time.perf_counter() - began
    ledger.sampled(agent, rollout.obs, stepper.counts)
    metrics |= {"time/steps_per_second": steps / total, "time/update": learning}
    return metrics | {f"time/{name}": value for name, value in stepper.seconds.items()}, steps


def train_metrics(rollout: Rollout, flags: Sequence[str]) -> Metrics:
    """Statistics of the training episodes: `train/success` is the paper's curve (sampled actions)."""
    returns, total = rollout.returns(), rollout.seconds["total"]
    success = np.stack([rollout.success(name) for name in flags], axis=1) if flags else None
    lengths = np.bincount(rollout.episode, minlength=rollout.episodes)
    ended = [
        Ended(float(value), int(length), () if success is None else tuple(map(bool, success[i])))
        for i, (value, length) in enumerate(zip(returns, lengths, strict=True))
    ]
    metrics = ended_metrics(ended, flags)
    metrics |= {"time/steps_per_second": len(rollout.t) / total, "time/sampling": total}
    return metrics | {f"time/{k}": v for k, v in rollout.seconds.items() if k != "total"}


def ended_metrics(ended: Sequence[Ended], flags: Sequence[str]) -> Metrics:
    """`train/*` of episodes that ended: success in percent under each flag, with the Wilson interval of the
    first one, and returns. Nothing if no episode ended."""
    if not ended:
        return {}
    success = np.array([episode.success for episode in ended])
    metrics = {f"train/{name}": 100.0 * float(success[:, f].mean()) for f, name in enumerate(flags)}
    if flags:
        low, high = wilson(int(success[:, 0].sum()), len(ended))
        metrics |= {f"train/{flags[0]}_low": 100.0 * low, f"train/{flags[0]}_high": 100.0 * high}
    returns = np.array([episode.value for episode in ended])
    return metrics | {
        "train/return": float(returns.mean()),
        "train/return_std": float(returns.std()),
        "train/return_min": float(returns.min()),
        "train/return_max": float(returns.max()),
        "train/episode_length": float(np.mean([episode.length for episode in ended])),
        "train/episodes": float(len(ended)),
    }


def summary(rows: Sequence[Row], steps: int, metrics: Metrics, score: Score) -> Metrics:
    """What a table of runs is sorted by, of the training curve of the score: the best iteration so far, the mean of
    the last five, the mean height. `rows` come before the iteration at `steps` with `metrics`."""
    key = score.metric("train")
    curve = [(row.step, row.metrics[key]) for row in rows if key in row.metrics]
    curve += [(steps, metrics[key])] if key in metrics else []
    if not curve:
        return {}
    at, values = zip(*curve, strict=True)
    return {
        score.metric("summary", "best"): max(values),
        score.metric("summary", "last5"): sum(values[-5:]) / len(values[-5:]),
        score.metric("summary", "auc"): area(at, values),
    }
