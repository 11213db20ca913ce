"""How fast and how large a run is on this machine: a few steps of it in a process of its own.

`python -m rrl.sweeps.speed` reads a run's gin source and prints a `Speed` as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrl.machine.processes import keep_freed_memory, memory
from rrl.sweeps.child import die_with

if TYPE_CHECKING:
    from rrl.agents.base import Agent
    from rrl.rollout.episodes import Collector

LEAST = 2.0  # seconds of sampling to measure
SAMPLES = 4096  # of the update that is timed


@dataclass(frozen=True)
class Speed:
    """What a run needs."""

    startup: float
    """Seconds until the first step: imports, simulators, network."""
    sampling: float
    """Seconds per environment step, by wall clock, with the machine's cores to itself."""
    learning: float
    """Seconds per sample of an update; of agents that learn at every step, per environment step."""
    memory: int
    """Bytes of the run's processes before the first update."""
    width: int
    """Bytes of an observation as the agent keeps it."""
    files: int
    """Bytes of a checkpoint and two policy files."""


def measure(source: str) -> Speed:
    """Measure a run of this (resolved) gin source. RuntimeError with the process' last words if it fails."""
    command = [sys.executable, "-m", "rrl.sweeps.speed", str(os.getpid())]
    start = time.monotonic()
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    found, worked = json.loads(done.stdout.splitlines()[-1])
    return Speed(startup=time.monotonic() - start - worked, **found)


def _probe(source: str) -> tuple[dict[str, float], float]:
    """What `Speed` holds beside the start-up, and the seconds spent on measuring it."""
    import numpy as np
    import torch

    from rrl.agents.base import SILENCE, AgentSteps
    from rrl.config import ginfile
    from rrl.encoders.base import Inference
    from rrl.rollout.data import Episode, Rollout
    from rrl.rollout.episodes import Collector
    from rrl.run.experiment import Experiment

    config = ginfile.loads(source)
    assert isinstance(config, Experiment.Config)
    assert config.workers is not None
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    # Learning from the first step on, as its cost is asked for.
    experiment = Experiment(config.model_copy(update={"agent": config.agent.at_once()}))
    envs = experiment.make_envs()
    try:
        collector = Collector(envs, config.groups or 1)
        inference = Inference(device=experiment.device)
        if config.precision != "int8":  # calibration would take longer than all the rest; its speed is another
            inference = experiment.make_inference(collector, SILENCE)
        agent = experiment.make_agent(experiment.encoder, envs, inference, 0)
        wants = config.agent.wants()
        if isinstance(wants, AgentSteps):
            return _probe_steps(agent, collector, wants.count)
        rng = np.random.default_rng(0)

        def steps(length: int) -> float:
            """Wall-clock seconds of so many steps of each environment; the policy acts all the same."""
            script = 0.3 * rng.standard_normal((length, envs.action_dim), np.float32)
            todo = [Episode(seed, actions=script) for seed in range(config.num_envs)]
            return collector.collect(agent, todo).seconds["total"]

        began = time.perf_counter()
        steps(2)
        trial = steps(3)
        length = max(3, round(3 * LEAST / trial))
        sampling = steps(length) / (length * config.num_envs)

        n = experiment.encoder.dim + envs.state_dim

        def rollout(count: int) -> Rollout:
            t = np.arange(count, dtype=np.int32) % experiment.env.horizon
            last = (t == experiment.env.horizon - 1) | (np.arange(count) == count - 1)
            episode = np.cumsum(np.concatenate([[0], last[:-1]])).astype(np.int32)
            return Rollout(
                obs=rng.standard_normal((count, n), np.float32),
                actions=rng.standard_normal((count, envs.action_dim), np.float32),
                rewards=rng.standard_normal(count),
                flags={flag: np.zeros(count, np.bool_) for flag in experiment.env.flags},
                episode=episode,
                t=t,
                terminated=np.zeros(count, np.bool_),
                truncated=last,
                final_obs=rng.standard_normal((int(episode[-1]) + 1, n), np.float32),
            )

        learning = 0.0
        if agent.demos == "required":
            agent.warm_start(rollout(SAMPLES // 4))
        if agent.needs_rollouts:
            agent.update(rollout(SAMPLES // 4))
            batch = rollout(SAMPLES)
            start = time.perf_counter()
            agent.update(batch)
            learning = (time.perf_counter() - start) / SAMPLES
        sizes = [sum(t.nbytes for t in tensors.values()) for tensors in (agent.snapshot()[0], agent.policy_state())]
        found = {"sampling": sampling, "learning": learning, "memory": memory(os.getpid()), "width": 4 * n}
        return found | {"files": sizes[0] + 2 * sizes[1]}, time.perf_counter() - began
    finally:
        envs.close()


def _probe_steps(agent: Agent, collector: Collector, count: int) -> tuple[dict[str, float], float]:
    """The same of an agent that wants `count` steps of every environment before each update."""
    from rrl.rollout.steps import Stepper

    envs, began = collector.envs, time.perf_counter()
    stepper = Stepper(envs, agent.stack, 0)
    sampling, learning, counted = 0.0, 0.0, -2  # the first ones warm up
    while counted < 3 or time.perf_counter() - began < 2 * LEAST:
        start = time.perf_counter()
        rollout = stepper.collect(agent, count)
        middle = time.perf_counter()
        agent.update(rollout)
        if counted >= 0:
            sampling, learning = sampling + middle - start, learning + time.perf_counter() - middle
        counted += 1
    made = counted * count * envs.num_envs * envs.factory.action_repeat
    sizes = [sum(t.nbytes for t in tensors.values()) for tensors in (agent.snapshot()[0], agent.policy_state())]
    measured = {"sampling": sampling / made, "learning": learning / made, "memory": memory(os.getpid())}
    measured |= {"width": rollout.obs[0].nbytes, "files": sizes[0] + 2 * sizes[1]}
    return measured, time.perf_counter() - began


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    print(json.dumps(_probe(sys.stdin.read())))
