"""How fast and how large a run is on this machine: a few steps of it in a process of its own.

That process reads the gin source from its input and prints a `Speed` as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.base import Agent, AgentSteps
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.machine import plugin_faults
from rrl.machine.processes import die_with, keep_freed_memory, memory, python
from rrl.machine.progress import SILENCE
from rrl.registry import UserError
from rrl.rollout.data import Episode, Rollout
from rrl.rollout.episodes import Collector
from rrl.rollout.steps import Stepper
from rrl.run.experiment import Experiment
from rrl.run.teaching import teach

PROGRAM = "from rrl.run.speed import main; main()"
LEAST = 2.0  # seconds of sampling to measure
MOST = 40.0  # seconds after which an agent with long updates is measured no longer than it must
MISTAKE, FAULT = 2, 3  # exit codes
TOLD = "mistake: "
SAMPLES = 4096  # of the update that is timed


class Unlike(RuntimeError):
    """Learning refused the made-up data of the measurement."""


class Fails(RuntimeError):
    """The run itself would end so, before it learns."""


@dataclass(frozen=True)
class Speed:
    """What a run needs."""

    startup: float
    """Seconds until the first step: imports, simulators, network."""
    sampling: float
    """Seconds per environment step, by wall clock, with the machine's cores to itself."""
    learning: float
    """Seconds of updates per environment step."""
    memory: int
    """Bytes of the run's processes: of an agent that wants steps, with an update's; of others, with a small one's."""
    width: int
    """Bytes of an observation as the agent keeps it."""
    files: int
    """Bytes of a checkpoint and two policy files."""


def measure(source: str) -> Speed:
    """Measure a run of this (resolved) gin source. UserError as the run itself would raise it before it learns, `Fails`
    with its last words where it would end in a fault; RuntimeError if nothing can be told of the run."""
    command = python(PROGRAM, str(os.getpid()))
    start = time.monotonic()
    process = subprocess.run(command, input=source, capture_output=True, text=True)
    if process.returncode == MISTAKE:
        raise UserError(process.stderr.partition(TOLD)[2].strip())
    if process.returncode != 0:
        fails = Fails if process.returncode == FAULT else RuntimeError
        raise fails((process.stderr.strip().splitlines() or ["no output"])[-1])
    measured, worked = json.loads(process.stdout.splitlines()[-1])
    return Speed(startup=time.monotonic() - start - worked, **measured)


def _probe(source: str) -> tuple[dict[str, float], float]:
    """What `Speed` holds beside the start-up, and the seconds spent on measuring it."""
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
        teach(agent, experiment)
        wants, began = config.agent.wants(), time.perf_counter()
        if isinstance(wants, AgentSteps):
            sampling, learning, row = _steps(agent, collector, wants.count)
        else:
            sampling, learning, row = _episodes(agent, collector)
        files = sum(t.nbytes for t in agent.snapshot()[0].values())
        files += 2 * sum(t.nbytes for t in agent.policy_state().values())
        measured = {"sampling": sampling, "learning": learning, "memory": memory(os.getpid())}
        return measured | {"width": row.nbytes, "files": files}, time.perf_counter() - began
    finally:
        envs.close()


def _episodes(agent: Agent, collector: Collector) -> tuple[float, float, NDArray[Any]]:
    """(sampling, learning) as in `Speed`, and an observation, of an agent that wants whole episodes."""
    envs = collector.envs
    rng = np.random.default_rng(0)

    def sampled(length: int) -> Rollout:
        """So many steps of each environment; the policy acts all the same."""
        script = 0.3 * rng.standard_normal((length, envs.action_dim), np.float32)
        return collector.collect(agent, [Episode(seed, actions=script) for seed in range(envs.num_envs)])

    sampled(2)
    length = max(3, round(3 * LEAST / sampled(3).seconds["total"]))
    rollout = sampled(length)
    repeat = envs.factory.action_repeat
    sampling = rollout.seconds["total"] / (length * envs.num_envs * repeat)
    learning = 0.0
    few, many = (_made_up(rollout, count, envs.factory.horizon, rng) for count in (SAMPLES // 4, SAMPLES))
    with _unlike_the_run():
        if agent.demos == "required":
            agent.warm_start(few)
        if agent.needs_rollouts:
            start = time.perf_counter()
            agent.update(few)
            learning = (time.perf_counter() - start) / (len(few.rewards) * repeat)
            if learning * len(many.rewards) * repeat < MOST / 2:
                start = time.perf_counter()
                agent.update(many)
                learning = (time.perf_counter() - start) / (len(many.rewards) * repeat)
    return sampling, learning, rollout.obs[0]


@contextmanager
def _unlike_the_run() -> Iterator[None]:
    """What learning refuses here, from other data than the run's, the run itself need not: Unlike."""
    try:
        yield
    except UserError as error:
        raise Unlike(str(error)) from error


def _made_up(like: Rollout, count: int, horizon: int, rng: np.random.Generator) -> Rollout:
    """`count` transitions in episodes of `horizon` steps, of the shapes of another rollout."""
    t = np.arange(count, dtype=np.int32) % horizon
    last = (t == horizon - 1) | (np.arange(count) == count - 1)
    episode = np.cumsum(np.concatenate([[0], last[:-1]])).astype(np.int32)

    def rows(number: int) -> NDArray[Any]:
        if like.obs.dtype == np.float32:
            return rng.standard_normal((number, *like.obs.shape[1:]), np.float32)
        return np.resize(like.obs, (number, *like.obs.shape[1:]))  # pictures

    return Rollout(
        obs=rows(count),
        actions=rng.standard_normal((count, like.actions.shape[1]), np.float32),
        rewards=rng.standard_normal(count),
        flags={flag: np.zeros(count, np.bool_) for flag in like.flags},
        episode=episode,
        t=t,
        terminated=np.zeros(count, np.bool_),
        truncated=last,
        final_obs=rows(int(episode[-1]) + 1),
    )


def _steps(agent: Agent, collector: Collector, count: int) -> tuple[float, float, NDArray[Any]]:
    """The same of an agent that wants `count` steps of every environment before each update."""
    envs, began = collector.envs, time.perf_counter()
    stepper = Stepper(envs, agent.stack, 0)
    sampling, learning, rounds = 0.0, 0.0, -2  # the first ones warm up
    while rounds < 1 or time.perf_counter() - began < (2 * LEAST if rounds >= 3 else MOST):
        start = time.perf_counter()
        rollout = stepper.collect(agent, count)
        middle = time.perf_counter()
        with _unlike_the_run():
            agent.update(rollout)
        if rounds >= 0:
            sampling, learning = sampling + middle - start, learning + time.perf_counter() - middle
        rounds += 1
    steps = rounds * count * envs.num_envs * envs.factory.action_repeat
    return sampling / steps, learning / steps, rollout.obs[0]


def main() -> None:
    """Print the `Speed` of the source on the standard input; ends with the process whose number is the argument."""
    die_with(int(sys.argv[1]))
    try:
        print(json.dumps(_probe(sys.stdin.read())))
    except UserError as error:
        print(f"{TOLD}{error}", file=sys.stderr)
        sys.exit(MISTAKE)
    except Unlike as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if (fault := plugin_faults.told(error)) is None:
            _fail(error)
        print(f"{TOLD}{fault}", file=sys.stderr)
        sys.exit(MISTAKE)


def _fail(error: Exception) -> NoReturn:
    """Say what went wrong where, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
    words = " ".join(str(error).split())
    print(f"{type(error).__name__}: {words} ({last.filename}:{last.lineno})", file=sys.stderr)
    sys.exit(FAULT)
