"""Can this machine do the run? Asked before anything is made."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rrl.agents.settings.base import Episodes
from rrl.encoders import backends
from rrl.envs.base import EnvFactory
from rrl.machine.processes import available_memory, in_bytes
from rrl.registry import UserError, build
from rrl.run import teaching
from rrl.run.experiment import Experiment

BESIDE = 16
"""Bytes that are kept of a step beside its observation, at least: reward, time, ends, an action of one number."""


def check(experiment: Experiment) -> None:
    """UserError where this machine can't compute the encoder as the (resolved) configuration says, or has less memory
    free than the run will surely take: what is kept of its steps (networks and updates come on top); or where there is
    no such teacher as the agent's settings name."""
    config = experiment.config
    assert config.precision != "auto"
    if experiment.frames is not None and experiment.encoder.backends is None:  # others choose what they compute with
        reason = backends.get(config.backend).refusal(config.device, config.precision)
        if reason:
            raise UserError(reason)
    for reason in (*(e.refusal() for e in config.evaluators), *(t.refusal() for t in config.trackers)):
        if reason:
            raise UserError(reason)
    teaching.check(experiment)
    needed, what = max(_kept(experiment))
    free = available_memory()
    if needed > free:
        raise UserError(f"{what}: {in_bytes(needed)} of memory or more, and this machine has {in_bytes(free)} free")


def _kept(experiment: Experiment) -> Iterator[tuple[float, str]]:
    """What is held at a time: (bytes at least, of what)."""
    config, env = experiment.config, experiment.env
    width = _width(experiment)
    name, wants = config.agent.component.__name__, config.agent.wants()
    count = config.agent.memory(training_steps(config) // env.action_repeat)
    yield count * (width + BESIDE), f"{name} keeps {count:,} observations of {width:,} bytes"
    if isinstance(wants, Episodes):
        count = wants.count * env.horizon
        yield (
            count * (width + BESIDE),
            f"{name} learns from {wants.count:,} episodes of {env.horizon:,} steps at once, observations of {width:,} "
            "bytes",
        )
    for evaluator in config.evaluators:
        count = evaluator.steps(env)
        yield count * BESIDE, f"{evaluator.component.__name__} keeps what happens in {count:,} steps"


def _width(experiment: Experiment) -> int:
    """Bytes of an observation: its newest picture while the encoder learns, else its features. (The state's numbers
    are known to the simulator alone.)"""
    if experiment.frames is None:
        return 0
    if experiment.encoder.trainable:
        return int(3 * len(experiment.env.cameras) * experiment.frames.size**2)
    return 4 * experiment.config.agent.kept_features(experiment.encoder.dim)


def training_steps(config: Experiment.Config) -> int:
    """Environment steps of training."""
    return config.iterations * iteration_steps(config)


def iteration_steps(config: Experiment.Config) -> int:
    """Environment steps of one iteration, at most."""
    env: EnvFactory = build(config.env)
    wants = config.agent.wants()
    if isinstance(wants, Episodes):
        return wants.count * env.horizon * env.action_repeat
    round_ = wants.count * config.num_envs * env.action_repeat
    return math.ceil(config.log_every / round_) * round_
